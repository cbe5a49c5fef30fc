// SPDX-License-Identifier: Apache-2.0
// tier_torture - writes blocks into an SSD tier and says which are durable; later, perhaps after a kill or a power cut, checks
// that they are, and that no block has a byte that it should not have.
//
//   tier_torture write DIR SEED [seconds [capacity-mib [most-mib]]]   prints "durable SEED NUMBER" for each block that is
//   stored tier_torture churn DIR SEED [capacity-mib]       the same until it is killed; reads, and writes again what is gone
//   tier_torture check DIR [FILE|-] [capacity-mib [recent-mib]]       reads those lines (FILE or standard input), asks for
//   every
//                                                    block, and for those that were written and are not among them; blocks with
//                                                    recent-mib of lines after them may be gone
//   tier_torture synthesize DIR GIB BLOCK-KIB        a container with that many blocks in its tables, and no pages
//   tier_torture recover DIR                         times the scan of a container
//
// Arguments KEY=VALUE are options of the nvme back end. Exit 0 when all is well, 1 when a durable block is lost or any byte is
// wrong, 2 when it could not work.
#include <fmt/format.h>

#include <fstream>
#include <iostream>

#include "tests/torture/tier_torture/verbs.hpp"

namespace pegaflow::torture {
namespace {

constexpr std::uint64_t kDefaultCapacityMib = 1024;

int finish(const Result<void>& result) {
    if (result) return 0;
    std::cerr << "tier_torture: " << result.error().message << "\n";
    return result.error().code == Code::kCorrupt ? 1 : 2;
}

int run_check(const Place& place, const std::string& name, std::uint64_t recent_bytes) {
    std::ifstream file;
    if (name != "-") file.open(name);
    const auto outcome = check(place, name != "-" ? file : std::cin, recent_bytes);
    if (!outcome) return finish(fail(outcome.error()));
    std::cout << fmt::format("{} durable, {} found, {} lost, {} wrong, {} beyond\n", outcome->durable, outcome->found,
                             outcome->lost, outcome->wrong, outcome->beyond);
    return outcome->lost + outcome->wrong == 0 ? 0 : 1;
}

int run(std::vector<std::string> arguments) {
    Place place;
    std::erase_if(arguments, [&](const std::string& argument) {
        const std::size_t equals = argument.find('=');
        if (equals != std::string::npos) place.nvme[argument.substr(0, equals)] = argument.substr(equals + 1);
        return equals != std::string::npos;
    });
    const auto number = [&](std::size_t i, std::uint64_t otherwise) {
        return arguments.size() > i ? std::strtoull(arguments[i].c_str(), nullptr, 10) : otherwise;
    };
    const std::string verb = arguments.empty() ? "" : arguments[0];
    if (arguments.size() > 1) place.dir = arguments[1];
    const std::size_t capacity_at = verb == "write" ? 4 : 3;
    place.capacity_bytes = number(capacity_at, kDefaultCapacityMib) << 20;
    if (verb == "write" && arguments.size() >= 3)
        return finish(
            write_blocks(place, number(2, 1), static_cast<double>(number(3, 10)), number(5, kDefaultCapacityMib / 2) << 20));
    if (verb == "churn" && arguments.size() >= 3) return finish(churn(place, number(2, 1)));
    if (verb == "check" && arguments.size() >= 2)
        return run_check(place, arguments.size() > 2 ? arguments[2] : "-", number(4, 0) << 20);
    if (verb == "synthesize" && arguments.size() == 4) return finish(synthesize(place.dir, number(2, 1), number(3, 64)));
    if (verb == "recover" && arguments.size() == 2) return finish(recover(place.dir));
    std::cerr << "usage: tier_torture write DIR SEED [seconds [capacity-mib [most-mib]]] | churn DIR SEED [capacity-mib] |\n"
                 "       check DIR [FILE|-] [capacity-mib [recent-mib]] | synthesize DIR GIB BLOCK-KIB | recover DIR\n"
                 "       [KEY=VALUE of the nvme back end]...\n";
    return 2;
}

}  // namespace
}  // namespace pegaflow::torture

int main(int argc, char** argv) { return pegaflow::torture::run({argv + 1, argv + argc}); }

// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <set>
#include <sstream>

#include "tests/torture/tier_torture/verbs.hpp"

namespace pegaflow::torture {
namespace {

constexpr std::uint64_t kBeyond = 1500;                  // blocks after the last durable one: more than the pool holds
constexpr std::uint64_t kSeeds = 2;                      // of the latest loads, whose unsaid blocks are asked for
constexpr std::uint64_t kOlder = 3;                      // as many of the lines before the recent ones
constexpr std::uint64_t kLoadBytes = 3 * kSegmentBytes;  // that the end of the load before left unused

struct Name {
    std::uint64_t seed = 0, number = 0;
    auto operator<=>(const Name&) const = default;
};

// What loads have said.
struct Said {
    struct Line {
        Name block;
        bool begins = false;  // a load: no block
    };
    std::vector<Line> lines;
    std::map<std::uint64_t, std::uint64_t> ends;  // by seed: after the largest number
    std::vector<std::uint64_t> seeds;             // in the order of their loads
};

Said parse(std::istream& in) {
    Said out;
    for (std::string text; std::getline(in, text);) {
        std::istringstream words(text);
        std::string word;
        Said::Line line;
        // The last line may be cut where the power went.
        if (in.eof() || !(words >> word >> line.block.seed)) continue;
        line.begins = word == "begin";
        if (!line.begins && (word != "durable" || !(words >> line.block.number))) continue;
        std::uint64_t& end = out.ends[line.block.seed];
        if (line.begins) out.seeds.push_back(line.block.seed);
        if (!line.begins) end = std::max(end, line.block.number + 1);
        out.lines.push_back(line);
    }
    return out;
}

class Check {
public:
    explicit Check(Setup& setup) : setup_(setup) {}

    Result<void> must_have(const Name& name) {
        PEGA_ASSIGN(const Found found, look(name));
        ++out.durable;
        out.found += found != Found::kNothing ? 1 : 0;
        out.lost += found == Found::kNothing ? 1 : 0;
        if (found == Found::kNothing) std::cerr << fmt::format("# lost: {} {}\n", name.seed, name.number);
        return {};
    }
    Result<void> may_have(const Name& name) {
        PEGA_ASSIGN(const Found found, look(name));
        out.beyond += found != Found::kNothing ? 1 : 0;
        return {};
    }

    Outcome out;

private:
    Result<Found> look(const Name& name) {
        PEGA_ASSIGN(const Found found, setup_.read(name.seed, name.number));
        out.wrong += found == Found::kWrongBytes ? 1 : 0;
        if (found == Found::kWrongBytes) std::cerr << fmt::format("# wrong bytes: {} {}\n", name.seed, name.number);
        return found;
    }

    Setup& setup_;
};

}  // namespace

Result<Outcome> check(const Place& place, std::istream& lines, std::uint64_t recent_bytes) {
    PEGA_ASSIGN(const auto setup, Setup::open(place));
    const Said said = parse(lines);
    Check check(*setup);
    std::set<Name> asked;
    std::uint64_t bytes = 0;  // of the lines from here to the last one
    for (std::size_t i = said.lines.size(); i-- > 0 && (recent_bytes == 0 || bytes <= (1 + kOlder) * recent_bytes);) {
        const Said::Line& line = said.lines[i];
        bytes += line.begins ? kLoadBytes : setup->of(line.block.number).block_bytes();
        if (line.begins || !asked.insert(line.block).second) continue;  // or it was written again since
        PEGA_TRY(recent_bytes == 0 || bytes <= recent_bytes ? check.must_have(line.block) : check.may_have(line.block));
    }
    for (const Said::Line& line : said.lines) {
        if (!line.begins) asked.insert(line.block);
    }
    for (std::size_t i = said.seeds.size(), last = i - std::min<std::size_t>(i, kSeeds); i-- > last;) {
        const std::uint64_t seed = said.seeds[i];
        for (std::uint64_t number = 0; number < said.ends.at(seed) + kBeyond; ++number) {
            if (!asked.contains({seed, number})) PEGA_TRY(check.may_have({seed, number}));
        }
    }
    return check.out;
}

}  // namespace pegaflow::torture

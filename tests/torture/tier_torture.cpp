// SPDX-License-Identifier: Apache-2.0
// tier_torture - writes blocks into an SSD tier and says which are durable; later, perhaps after a kill or a power cut, checks
// that they are, and that no block has a byte that it should not have.
//
//   tier_torture write DIR SEED [seconds [capacity-mib [most-mib]]]   prints "durable SEED NUMBER" for each block that is
//   stored tier_torture check DIR [FILE] [capacity-mib]     reads those lines (FILE or standard input), asks for every block
//   tier_torture synthesize DIR GIB BLOCK-KIB        a container with that many blocks in its tables, and no pages
//   tier_torture recover DIR                         times the scan of a container
//
// Exit 0 when all is well, 1 when a durable block is lost or any byte is wrong, 2 when it could not work.
#include <fmt/format.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <iostream>
#include <random>
#include <sstream>
#include <thread>

#include "engine/tier/container.hpp"
#include "engine/tier/extent_builder.hpp"
#include "engine/tier/recovery.hpp"
#include "pegaflow/bytes.hpp"
#include "pegaflow/engine.hpp"
#include "pegaflow/transfer.hpp"

#include <fcntl.h>
#include <unistd.h>

namespace pegaflow::torture {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint32_t kBlocks = 64;  // of the pretended worker's memory
constexpr std::uint64_t kPoolBytes = 64 << 20;
constexpr std::uint64_t kSegmentBytes = 4 << 20;
constexpr std::uint64_t kDefaultCapacityMib = 1024;

// A worker whose block bytes follow from seed and number.
class Worker {
public:
    Worker(std::string name, std::uint64_t block_bytes)
        : name_(std::move(name)), block_bytes_(block_bytes), memory_(block_bytes * kBlocks) {}

    WorkerRegistration registration() {
        WorkerRegistration w;
        w.instance_id = name_;
        w.name_space = "torture";
        LayerRegistration layer;
        layer.name = "layer";
        layer.memory.source = PEGA_SOURCE_ADDRESS;
        layer.memory.address = memory_.data();
        layer.memory.length = memory_.size();
        layer.num_blocks = kBlocks;
        layer.bytes_per_block = block_bytes_;
        w.layers.push_back(layer);
        return w;
    }
    void fill(std::uint32_t block, std::uint64_t seed, std::uint64_t number) { pattern(seed, number, at(block)); }
    bool right(std::uint32_t block, std::uint64_t seed, std::uint64_t number) {
        std::vector<std::uint64_t> expected(block_bytes_ / 8);
        pattern(seed, number, expected.data());
        return std::memcmp(expected.data(), at(block), block_bytes_) == 0;
    }
    void poison(std::uint32_t block) { std::memset(at(block), 0xEE, block_bytes_); }
    const std::string& name() const { return name_; }
    std::uint64_t block_bytes() const { return block_bytes_; }

private:
    std::uint64_t* at(std::uint32_t block) { return reinterpret_cast<std::uint64_t*>(memory_.data() + block * block_bytes_); }
    void pattern(std::uint64_t seed, std::uint64_t number, std::uint64_t* out) const {
        std::mt19937_64 random(seed * 1'000'003 + number);
        for (std::uint64_t i = 0; i < block_bytes_ / 8; ++i) out[i] = random();
    }

    std::string name_;
    std::uint64_t block_bytes_;
    std::vector<std::byte> memory_;
};

std::string hash_of(std::uint64_t seed, std::uint64_t number) { return fmt::format("torture-{:010}-{:013}", seed, number); }

struct Setup {
    std::unique_ptr<Fabric> fabric;
    std::unique_ptr<Engine> engine;
    Worker small{"small", 64 << 10}, large{"large", 768 << 10};
    // Every fifth block is a large one.
    Worker& of(std::uint64_t number) { return number % 5 == 4 ? large : small; }
};

Result<void> open(Setup& setup, const std::string& dir, std::uint64_t capacity_mib) {
    PEGA_ASSIGN(setup.fabric, Fabric::open({.backends = {"host", "nvme"}}));
    EngineOptions options;
    options.pool_bytes = kPoolBytes;
    options.tier.paths = {dir};
    options.tier.capacity_bytes = capacity_mib << 20;
    options.tier.segment_bytes = kSegmentBytes;
    PEGA_ASSIGN(setup.engine, Engine::create(options, *setup.fabric));
    for (const TierDeviceInfo& device : setup.engine->tier_devices()) {
        if (device.state != "ok") return fail(Code::kRegionLost, device.path + ": " + device.problem);
        std::cerr << fmt::format("# {}: {} blocks found in {:.3f} s\n", device.path, device.recovered_blocks,
                                 device.recovery_seconds);
    }
    PEGA_TRY(setup.engine->register_worker(setup.small.registration()));
    return setup.engine->register_worker(setup.large.registration());
}

Result<void> save(Setup& setup, std::uint64_t seed, std::uint64_t number) {
    Worker& worker = setup.of(number);
    const std::string hash = hash_of(seed, number);
    const std::string_view view = hash;
    const std::uint32_t block = static_cast<std::uint32_t>(number % kBlocks);
    worker.fill(block, seed, number);
    const SaveLayer layer{"layer", {&block, 1}, {&view, 1}};
    PEGA_TRY(setup.engine->save({.instance_id = worker.name(), .layers = {&layer, 1}}));
    return {};
}

void say(const std::string& line) {
    // One write a line: what is said is said, whatever happens next.
    if (::write(STDOUT_FILENO, line.data(), line.size()) != static_cast<ssize_t>(line.size())) std::_Exit(2);
}

// Reports saved blocks as they become durable, in any order; gives up on those that the tier did not take.
class Watch {
public:
    Watch(Setup& setup, std::uint64_t seed) : setup_(setup), seed_(seed) {}
    void add(std::uint64_t number) { waiting_.push_back(number); }
    void look() {
        std::erase_if(waiting_, [&](std::uint64_t number) {
            if (!setup_.engine->stored(setup_.of(number).name(), hash_of(seed_, number))) return false;
            say(fmt::format("durable {} {}\n", seed_, number));
            ++durable_;
            return true;
        });
        if (waiting_.size() > 4000) waiting_.erase(waiting_.begin(), waiting_.begin() + 2000);
    }
    std::uint64_t durable() const { return durable_; }

private:
    Setup& setup_;
    std::uint64_t seed_;
    std::vector<std::uint64_t> waiting_;
    std::uint64_t durable_ = 0;
};

Result<void> write_blocks(const std::string& dir, std::uint64_t seed, double seconds, std::uint64_t capacity_mib,
                          std::uint64_t most_mib) {
    Setup setup;
    PEGA_TRY(open(setup, dir, capacity_mib));
    Watch watch(setup, seed);
    const auto end = Clock::now() + std::chrono::duration<double>(seconds);
    std::uint64_t bytes = 0;
    std::mt19937_64 random(seed);
    for (std::uint64_t number = 0; Clock::now() < end && bytes < most_mib << 20; ++number) {
        PEGA_TRY(save(setup, seed, number));
        bytes += setup.of(number).block_bytes();
        watch.add(number);
        watch.look();
        // Bursts and pauses, so that extents of all sizes are open when the end comes.
        if (random() % 32 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 20'000));
    }
    PEGA_TRY(setup.engine->flush_to_tier(Clock::now() + std::chrono::seconds(60)));
    watch.look();
    std::cerr << fmt::format("# {} written, {} blocks durable\n", format_size(bytes), watch.durable());
    return {};
}

struct Outcome {
    std::uint64_t durable = 0, found = 0, lost = 0, wrong = 0;
};

Result<void> check_one(Setup& setup, std::uint64_t seed, std::uint64_t number, Outcome& outcome) {
    Worker& worker = setup.of(number);
    const std::string hash = hash_of(seed, number);
    const std::string_view view = hash;
    QueryOutcome found;
    do {
        PEGA_ASSIGN(found, setup.engine->query({.instance_id = worker.name(), .hashes = {&view, 1}, .request_id = hash}));
        if (found.loading) std::this_thread::sleep_for(std::chrono::microseconds(50));
    } while (found.loading);
    ++outcome.durable;
    if (found.hit_blocks == 0) {
        ++outcome.lost;
        std::cerr << fmt::format("# lost: {} {}\n", seed, number);
        return {};
    }
    ++outcome.found;
    worker.poison(0);
    const std::uint32_t block = 0;
    const std::span<const std::uint32_t> target(&block, 1);
    const LeaseLoad load{*found.lease, {&target, 1}};
    const std::string_view name = "layer";
    const std::span<const std::string_view> group(&name, 1);
    PEGA_TRY(setup.engine->load({.instance_id = worker.name(), .layer_groups = {&group, 1}, .loads = {&load, 1}}));
    if (worker.right(0, seed, number)) return {};
    ++outcome.wrong;
    std::cerr << fmt::format("# wrong bytes: {} {}\n", seed, number);
    return {};
}

Result<Outcome> check(const std::string& dir, std::istream& in, std::uint64_t capacity_mib) {
    Setup setup;
    PEGA_TRY(open(setup, dir, capacity_mib));
    Outcome outcome;
    for (std::string line; std::getline(in, line);) {
        std::istringstream words(line);
        std::string word;
        std::uint64_t seed = 0;
        std::uint64_t number = 0;
        // The last line may be cut where the power went.
        if (!(words >> word >> seed >> number) || word != "durable" || in.eof()) continue;
        PEGA_TRY(check_one(setup, seed, number, outcome));
    }
    return outcome;
}

Result<void> synthesize(const std::string& dir, std::uint64_t gib, std::uint64_t block_kib) {
    using namespace engine::tier;
    constexpr std::uint64_t kSegment = 64 << 20;
    PEGA_ASSIGN(auto container, Container::open(dir, (gib << 30) * 103 / 100 + kSegment * 8, kSegment));
    const Superblock super = container->superblock();
    const int fd = ::open(container->path().c_str(), O_RDWR | O_CLOEXEC);
    std::vector<std::byte> memory(4 << 20);
    std::uint64_t blocks = 0;
    const std::uint64_t wanted = (gib << 30) / (block_kib << 10);
    const std::string fingerprint(32, 'f');
    for (std::uint64_t slot = 0; slot < super.segment_count && blocks < wanted; ++slot) {
        encode(SegmentHeader{super.container, slot + 1, slot, 0, 0}, std::span(memory).first(kBlockBytes));
        const auto header = std::span(memory).first(kBlockBytes);
        const std::uint32_t chain = closing_digest(header);
        if (::pwrite(fd, header.data(), header.size(), static_cast<off_t>(super.segment_at(slot))) < 0) break;
        ExtentBuilder builder({kSegment, 4 << 20, 1 << 20, 3 << 20}, slot + 1, chain);
        std::vector<Record> all;
        std::vector<std::string> names;
        names.reserve(kSegment / (block_kib << 10) + 1);
        for (bool full = false; !full && blocks < wanted;) {
            for (;;) {
                names.push_back(hash_of(1, blocks));
                Record record{"torture", fingerprint, 0, names.back(), 0, {{static_cast<std::uint32_t>(block_kib << 10), 7}}};
                if (!builder.fits(record)) break;
                builder.add(std::move(record));
                ++blocks;
            }
            full = builder.empty();
            if (full) break;
            auto extent = builder.finish(memory);
            all.insert(all.end(), extent.records.begin(), extent.records.end());
        }
        const std::uint64_t used = builder.close(all, memory);
        if (::pwrite(fd, memory.data(), used, static_cast<off_t>(super.segment_at(slot) + kSegment - used)) < 0) break;
    }
    ::fsync(fd);
    ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    ::close(fd);
    std::cout << fmt::format("{} blocks of {} KiB in {} segments\n", blocks, block_kib, super.segment_count);
    return {};
}

Result<void> recover(const std::string& dir) {
    Setup setup;
    PEGA_ASSIGN(const auto container, engine::tier::Container::open_read_only(dir));
    const std::uint64_t capacity = container->superblock().total_bytes();
    PEGA_ASSIGN(setup.fabric, Fabric::open({.backends = {"host", "nvme"}}));
    EngineOptions options;
    options.pool_bytes = kPoolBytes;
    options.tier.paths = {dir};
    options.tier.capacity_bytes = capacity;
    options.tier.segment_bytes = container->superblock().segment_bytes;
    PEGA_ASSIGN(setup.engine, Engine::create(options, *setup.fabric));
    const auto devices = setup.engine->tier_devices();
    std::cout << fmt::format("{} blocks ({}) found in {:.3f} s {}\n", devices[0].recovered_blocks,
                             format_size(devices[0].live_bytes), devices[0].recovery_seconds, devices[0].problem);
    return {};
}

int finish(const Result<void>& result) {
    if (result) return 0;
    std::cerr << "tier_torture: " << result.error().message << "\n";
    return 2;
}

int run(const std::vector<std::string>& arguments) {
    const auto number = [&](std::size_t i, std::uint64_t otherwise) {
        return arguments.size() > i ? std::strtoull(arguments[i].c_str(), nullptr, 10) : otherwise;
    };
    if (arguments.size() >= 3 && arguments[0] == "write") {
        return finish(write_blocks(arguments[1], number(2, 1), static_cast<double>(number(3, 10)),
                                   number(4, kDefaultCapacityMib), number(5, kDefaultCapacityMib / 2)));
    }
    if (arguments.size() >= 2 && arguments[0] == "check") {
        std::ifstream file;
        const bool named = arguments.size() >= 3 && arguments[2] != "-";
        if (named) file.open(arguments[2]);
        const auto outcome = check(arguments[1], named ? file : std::cin, number(3, kDefaultCapacityMib));
        if (!outcome) return finish(fail(outcome.error()));
        std::cout << fmt::format("{} durable, {} found, {} lost, {} wrong\n", outcome->durable, outcome->found, outcome->lost,
                                 outcome->wrong);
        return outcome->lost + outcome->wrong == 0 ? 0 : 1;
    }
    if (arguments.size() == 4 && arguments[0] == "synthesize")
        return finish(synthesize(arguments[1], number(2, 1), number(3, 64)));
    if (arguments.size() == 2 && arguments[0] == "recover") return finish(recover(arguments[1]));
    std::cerr
        << "usage: tier_torture write DIR SEED [seconds [capacity-mib [most-mib]]] | check DIR [FILE|-] [capacity-mib] |\n"
           "       synthesize DIR GIB BLOCK-KIB | recover DIR\n";
    return 2;
}

}  // namespace
}  // namespace pegaflow::torture

int main(int argc, char** argv) { return pegaflow::torture::run({argv + 1, argv + argc}); }

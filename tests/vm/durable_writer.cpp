// SPDX-License-Identifier: Apache-2.0
// Writes numbered records through the nvme back end with the durable option and says which are acknowledged; after a power cut,
// checks that every acknowledged one is there.
//
//   durable_writer write PATH BYTES SEED [OPTION=VALUE]...  prints "ack SEED N" a line, for ever
//   durable_writer check PATH BYTES LOG [OPTION=VALUE]...   LOG is what `write` printed
//
// Another run on the same place has another seed: else a lost record would be taken for the one that stood there before.
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <string>
#include <vector>

#include "pegaflow/transfer.hpp"

namespace {

using pegaflow::Completion;
using pegaflow::Device;
using pegaflow::Error;
using pegaflow::Fabric;
using pegaflow::FabricOptions;
using pegaflow::Region;
using pegaflow::Result;
using pegaflow::Transfer;

constexpr std::uint64_t kRecord = 32 << 10;
constexpr std::uint64_t kInFlight = 16;

std::uint64_t word(std::uint64_t seed, std::uint64_t record, std::uint64_t i) {
    std::uint64_t x = (seed * 1'000'003 + record + 1) * 0x9e3779b97f4a7c15ULL + i * 0xd1342543de82ef95ULL;
    x ^= x >> 29;
    return x * 0xff51afd7ed558ccdULL;
}

struct Setup {
    std::unique_ptr<Fabric> fabric;
    Region file, memory;
    pegaflow::Channel channel;
    std::uint64_t slots = 0;
};

Result<Setup> open(const char* path, std::uint64_t bytes, char** options, int count) {
    Setup s;
    FabricOptions fabric{.backends = {"nvme"}};
    for (int i = 0; i < count; ++i) {
        const std::string option = options[i];
        fabric.options["nvme"][option.substr(0, option.find('='))] = option.substr(option.find('=') + 1);
    }
    PEGA_ASSIGN(s.fabric, Fabric::open(std::move(fabric)));
    PEGA_ASSIGN(Device* const device, s.fabric->device("nvme:0"));
    pega_memory memory{};
    memory.size = sizeof memory;
    memory.kind = PEGA_MEMORY_FILE;
    memory.source = PEGA_SOURCE_PATH;
    memory.length = bytes;
    memory.handle = path;
    memory.handle_length = std::strlen(path);
    PEGA_ASSIGN(s.file, device->register_memory(memory));
    PEGA_ASSIGN(s.memory, device->allocate(PEGA_MEMORY_HOST, kRecord * kInFlight));
    PEGA_ASSIGN(s.channel, device->open_channel());
    s.slots = bytes / kRecord;
    return s;
}

// Record N is written at slot N % slots; several are under way, and each may be several requests.
Result<void> write_for_ever(Setup& s, std::uint64_t seed) {
    std::vector<Transfer> transfers(kInFlight);
    std::vector<Completion> completions(kInFlight);
    auto* const words = static_cast<std::uint64_t*>(s.memory.address());
    for (std::uint64_t record = 0;; ++record) {
        const std::uint64_t place = record % kInFlight;
        if (record >= kInFlight) {
            PEGA_TRY(completions[place].wait());
            std::printf("ack %" PRIu64 " %" PRIu64 "\n", seed, record - kInFlight);
            std::fflush(stdout);
        }
        for (std::uint64_t i = 0; i < kRecord / 8; ++i) words[place * kRecord / 8 + i] = word(seed, record, i);
        Transfer& t = transfers[place].clear().flat(s.memory, s.file).durable();
        // Every other record goes as two requests (its halves are not in order, so that they are not merged), so that both ways
        // of being durable are met.
        const std::uint64_t at = record % s.slots * kRecord;
        const std::uint64_t first = record % 2 == 0 ? kRecord : kRecord / 2;
        if (first != kRecord) t.range(place * kRecord + first, at + first, kRecord - first);
        t.range(place * kRecord, at, first);
        PEGA_ASSIGN(completions[place], s.channel.submit_wait(t));
    }
}

struct Acknowledged {
    std::uint64_t seed = 0;
    std::vector<std::uint64_t> records;
};

Acknowledged parse(const char* log) {
    Acknowledged out;
    std::ifstream file(log);
    for (std::string line; std::getline(file, line);) {
        std::uint64_t record = 0;
        // The last line may be cut off: only whole ones count.
        if (!file.eof() && std::sscanf(line.c_str(), "ack %" SCNu64 " %" SCNu64, &out.seed, &record) == 2)
            out.records.push_back(record);
    }
    return out;
}

Result<int> check(Setup& s, const char* log) {
    const auto [seed, acknowledged] = parse(log);
    const std::uint64_t last = acknowledged.empty() ? 0 : *std::max_element(acknowledged.begin(), acknowledged.end());
    int lost = 0;
    int checked = 0;
    Transfer transfer;
    for (const std::uint64_t record : acknowledged) {
        if (record + s.slots <= last + 2 * kInFlight) continue;  // written over since, or just when the power went
        const std::uint64_t at = record % s.slots * kRecord;
        transfer.clear().read().flat(s.memory, s.file).range(0, at, kRecord);
        PEGA_ASSIGN(const Completion done, s.channel.submit_wait(transfer));
        PEGA_TRY(done.wait());
        const auto* words = static_cast<const std::uint64_t*>(s.memory.address());
        std::uint64_t wrong = 0;
        for (std::uint64_t i = 0; i < kRecord / 8; ++i) wrong += words[i] == word(seed, record, i) ? 0 : 1;
        ++checked;
        if (wrong == 0) continue;
        ++lost;
        std::printf("record %" PRIu64 " was acknowledged, and %" PRIu64 " of its %" PRIu64 " words are wrong\n", record, wrong,
                    kRecord / 8);
    }
    std::printf("%zu acknowledged, %d checked, %d lost\n", acknowledged.size(), checked, lost);
    return lost;
}

int failed(const Error& error) {
    std::fprintf(stderr, "durable_writer: %s\n", error.message.c_str());
    return 1;
}

}  // namespace

int main(int argc, char** argv) {
    const bool writes = argc >= 4 && std::strcmp(argv[1], "write") == 0;
    const int options = 5;
    if (argc < options || (!writes && std::strcmp(argv[1], "check") != 0)) {
        std::fprintf(
            stderr, "usage: durable_writer write PATH BYTES SEED [OPTION=VALUE]... | check PATH BYTES LOG [OPTION=VALUE]...\n");
        return 2;
    }
    auto setup = open(argv[2], std::strtoull(argv[3], nullptr, 10), argv + options, argc - options);
    if (!setup) return failed(setup.error());
    if (writes) {
        const auto ended = write_for_ever(*setup, std::strtoull(argv[4], nullptr, 10));
        return failed(ended.error());
    }
    const auto lost = check(*setup, argv[4]);
    return !lost ? failed(lost.error()) : *lost == 0 ? 0 : 3;
}

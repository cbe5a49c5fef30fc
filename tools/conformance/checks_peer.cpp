// SPDX-License-Identifier: Apache-2.0
// Checks of what crosses processes: descriptors, notifications, peers.
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "tools/conformance/fixture.hpp"
#include "tools/conformance/peer_process.hpp"

namespace pegaflow::conformance {
namespace {

const std::vector<std::uint64_t> kZero = {0};
constexpr int kPeerUnreachable = 77;  // exit code of the other process
constexpr std::uint64_t kPeerSeed = 99;
constexpr std::uint8_t kChanges[] = {0x01, 0x41, 0x80, 0xFF};  // what a byte that went wrong differs by

std::vector<std::uint8_t> descriptor_of(Fixture& f, pega_region* region) {
    std::vector<std::uint8_t> bytes(4096);
    std::uint64_t length = 0;
    PEGA_EXPECT(f.m.region->export_descriptor(region, bytes.data(), bytes.size(), &length) == PEGA_OK, "export");
    std::uint64_t again = 0;
    PEGA_EXPECT(f.m.region->export_descriptor(region, nullptr, 0, &again) == PEGA_NO_MEMORY && again == length,
                "the size asked for first");
    bytes.resize(length);
    return bytes;
}

pega_region* shared_region(Fixture& f, std::uint64_t bytes) {
    pega_memory memory{};
    memory.size = sizeof memory;
    memory.kind = f.info.kind;
    memory.source = PEGA_SOURCE_ALLOCATE;
    memory.flags = PEGA_REGION_SHARED;
    memory.length = bytes;
    pega_region* out = nullptr;
    PEGA_EXPECT(f.m.region->register_memory(f.device, &memory, &out) == PEGA_OK, "allocate shared memory");
    return out;
}

void descriptors_travel(Fixture& f) {
    if (!f.has(PEGA_CAP_PEERS)) throw Skipped("no peers");
    pega_region* region = shared_region(f, 65536);
    const std::vector<std::uint8_t> bytes = descriptor_of(f, region);
    pega_region* imported = nullptr;
    const pega_status status = f.m.region->import_descriptor(f.device, bytes.data(), bytes.size(), &imported);
    if (status == PEGA_UNSUPPORTED) throw Skipped("a process cannot import its own regions here");
    PEGA_EXPECT(status == PEGA_OK, fmt::format("import: status {}", status));
    pega_region_info info{};
    info.size = sizeof info;
    f.m.region->info(imported, &info);
    PEGA_EXPECT(info.length == 65536, fmt::format("the imported region has {} bytes", info.length));
    PEGA_EXPECT(f.m.region->unregister(imported) == PEGA_OK, "unregister the import");
    PEGA_EXPECT(f.m.region->unregister(region) == PEGA_OK, "unregister the origin");
}

void broken_descriptors_are_refused(Fixture& f) {
    if (!f.has(PEGA_CAP_PEERS)) throw Skipped("no peers");
    pega_region* region = shared_region(f, 65536);
    const std::vector<std::uint8_t> good = descriptor_of(f, region);
    pega_region* imported = nullptr;
    for (std::size_t length = 0; length < good.size(); ++length) {
        PEGA_EXPECT(f.m.region->import_descriptor(f.device, good.data(), length, &imported) < 0,
                    fmt::format("a descriptor cut to {} bytes", length));
    }
    for (std::size_t at = 0; at < good.size(); ++at) {
        for (const std::uint8_t change : kChanges) {
            std::vector<std::uint8_t> bad = good;
            bad[at] ^= change;
            const pega_status status = f.m.region->import_descriptor(f.device, bad.data(), bad.size(), &imported);
            PEGA_EXPECT(status < 0, fmt::format("a descriptor with byte {} changed by {:#04x} was taken", at, change));
        }
    }
    PEGA_EXPECT(f.m.region->unregister(region) == PEGA_OK, "unregister");
}

void notify_arrives_after_the_bytes(Fixture& f) {
    const auto* table = &f.claimed<pega_ext_notify>(PEGA_CAP_NOTIFY, PEGA_EXT_NOTIFY);
    Memory local = f.local();
    Memory remote = f.remote();
    pega_channel* channel = f.open_channel();
    const std::vector<std::uint64_t> length = {Fixture::kBytes};
    pega_notify_option option{{sizeof option, PEGA_OPTION_NOTIFY, 0, 0, nullptr}, 4711, 0};
    PEGA_EXPECT(table->consume(f.device, 4711, 1) == PEGA_RETRY, "a value that nobody sent");
    for (int i = 0; i < 3; ++i) {
        pega_batch batch = f.flat(PEGA_OP_WRITE, local, remote, kZero, kZero, length);
        batch.options = &option.base;
        PEGA_EXPECT(f.run(channel, batch).status == PEGA_OK, "status");
    }
    // They came before anyone asked, and were counted.
    PEGA_EXPECT(table->count(f.device, 4711) == 3, fmt::format("{} arrivals, expected 3", table->count(f.device, 4711)));
    PEGA_EXPECT(table->consume(f.device, 4711, 4) == PEGA_RETRY, "more than arrived");
    PEGA_EXPECT(table->consume(f.device, 4711, 2) == PEGA_OK && table->count(f.device, 4711) == 1, "two of three");
    PEGA_EXPECT(table->count(f.device, 1) == 0, "another value");
    std::copy(local.shadow.begin(), local.shadow.end(), remote.shadow.begin());
    f.expect_same(remote, "remote");
}

std::vector<std::uint8_t> address_of(Fixture& f) {
    std::vector<std::uint8_t> bytes(4096);
    std::uint64_t length = 0;
    PEGA_EXPECT(f.m.backend->address(f.device, bytes.data(), bytes.size(), &length) == PEGA_OK, "address");
    bytes.resize(length);
    return bytes;
}

void bad_addresses_are_refused(Fixture& f) {
    if (!f.has(PEGA_CAP_PEERS)) throw Skipped("no peers");
    const std::vector<std::uint8_t> good = address_of(f);
    pega_channel* out = nullptr;
    const std::vector<std::uint8_t> garbage(64, 0x7F);
    PEGA_EXPECT(f.try_channel(0, garbage.data(), garbage.size(), &out) < 0, "an address of garbage");
    for (std::size_t length = 1; length < good.size(); ++length) {
        PEGA_EXPECT(f.try_channel(0, good.data(), length, &out) < 0, fmt::format("an address cut to {} bytes", length));
    }
    // A changed one may be another device's: then the channel looks for it, and closes like any other.
    for (std::size_t at = 0; at < good.size(); ++at) {
        for (const std::uint8_t change : kChanges) {
            std::vector<std::uint8_t> bad = good;
            bad[at] ^= change;
            if (f.try_channel(0, bad.data(), bad.size(), &out) != PEGA_OK) continue;
            f.m.channel->state(out);
            f.close_channel(out);
        }
    }
    f.expect_silence();
}

}  // namespace

// The other process writes into this one's region through the module, notifies, and goes.
// Where a device does not reach itself in another process (NCCL joins different GPUs only), the next device is taken.
int run_peer(const Options& options, const PeerProcess::Bytes& address, const PeerProcess::Bytes& descriptor) {
    const Module module(options);
    std::uint32_t which = 0;
    {
        Fixture first(module, kPeerSeed);
        pega_channel* tried = nullptr;
        if (first.try_channel(0, address.data(), address.size(), &tried) == PEGA_UNSUPPORTED && ++which == first.device_count)
            return kPeerUnreachable;
    }
    Fixture f(module, kPeerSeed, which);
    Memory local = f.local(65536);
    pega_region* remote = nullptr;
    if (f.m.region->import_descriptor(f.device, descriptor.data(), descriptor.size(), &remote) != PEGA_OK) return 2;
    pega_channel* channel = f.open_channel(0, address.data(), address.size());
    Memory target;
    target.region = remote;
    const std::vector<std::uint64_t> length = {65536};
    pega_notify_option option{{sizeof option, PEGA_OPTION_NOTIFY, 0, 0, nullptr}, 8, 0};
    pega_batch batch = f.flat(PEGA_OP_WRITE, local, target, kZero, kZero, length);
    batch.options = &option.base;
    if (f.run(channel, batch).status != PEGA_OK) return 3;
    f.close_channel(channel);
    return f.m.region->unregister(remote) == PEGA_OK ? 0 : 4;
}

PeerProcess* current_peer = nullptr;

namespace {

void a_peer_process_writes_and_notifies(Fixture& f) {
    if (!f.has(PEGA_CAP_PEERS)) throw Skipped("no peers");
    const auto* table = &f.claimed<pega_ext_notify>(PEGA_CAP_NOTIFY, PEGA_EXT_NOTIFY);
#if defined(__SANITIZE_THREAD__)
    throw Skipped("the thread sanitizer does not follow threads of a forked process");
#endif
    pega_region* region = shared_region(f, 65536);
    PEGA_EXPECT(current_peer != nullptr && current_peer->tell(address_of(f), descriptor_of(f, region)), "start the peer");
    auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    bool ended = false;
    while (table->count(f.device, 8) == 0 && std::chrono::steady_clock::now() < limit) {
        // What it sent before it ended may still be on its way.
        if (!ended && current_peer->ended()) limit = std::chrono::steady_clock::now() + std::chrono::seconds(5);
        ended = current_peer->ended();
        pega_completion record{};
        record.size = sizeof record;
        f.m.completion->poll(f.device, &record, 1);
        std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    const int status = current_peer->wait();
    if (WIFEXITED(status) && WEXITSTATUS(status) == kPeerUnreachable)
        throw Skipped("a device does not reach itself in another process here, and there is no second one");
    PEGA_EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, fmt::format("the peer ended with {}", status));
    PEGA_EXPECT(table->consume(f.device, 8, 1) == PEGA_OK, "the peer's value did not arrive");
    Fixture twin(f.m, kPeerSeed);  // its first memory has the bytes that the peer's had
    Memory written;
    written.region = region;
    written.shadow = twin.local(65536).shadow;
    f.expect_same(written, "what the peer wrote");
    PEGA_EXPECT(f.m.region->unregister(region) == PEGA_OK, "unregister");
}

}  // namespace

std::vector<Check> peer_checks() {
    return {{"descriptors_travel", descriptors_travel},
            {"broken_descriptors_are_refused", broken_descriptors_are_refused},
            {"notify_arrives_after_the_bytes", notify_arrives_after_the_bytes},
            {"bad_addresses_are_refused", bad_addresses_are_refused},
            {"a_peer_process_writes_and_notifies", a_peer_process_writes_and_notifies}};
}

}  // namespace pegaflow::conformance

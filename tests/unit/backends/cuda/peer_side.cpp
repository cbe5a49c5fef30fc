// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/backends/cuda/peer_side.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>

namespace pegaflow {

std::vector<std::uint8_t> seeded_bytes(std::uint64_t seed, std::uint64_t length) {
    std::vector<std::uint8_t> out(length);
    std::mt19937_64 random(seed);
    for (std::uint64_t i = 0; i + 8 <= length; i += 8) {
        const std::uint64_t value = random();
        std::memcpy(out.data() + i, &value, 8);
    }
    return out;
}

Pages Pages::random(std::uint64_t page, std::uint64_t count, std::mt19937_64& from) {
    const auto choose = [&] {
        std::vector<std::uint64_t> places(kPeerBytes / page);
        std::iota(places.begin(), places.end(), 0);
        std::shuffle(places.begin(), places.end(), from);
        places.resize(count);
        return places;
    };
    Pages out{page, choose(), {}};
    out.remote = choose();
    return out;
}

Pages Pages::of_part(std::uint64_t page, std::uint64_t part, std::uint64_t parts, std::mt19937_64& from) {
    const std::uint64_t count = kPeerBytes / page / parts;
    const auto choose = [&] {
        std::vector<std::uint64_t> places(count);
        std::iota(places.begin(), places.end(), part * count);
        std::shuffle(places.begin(), places.end(), from);
        return places;
    };
    Pages out{page, choose(), {}};
    out.remote = choose();
    return out;
}

void Pages::fill(Transfer& transfer, const Region& local_region, const Region& remote_region, bool read) const {
    transfer.clear().indices(local, remote);
    transfer.span({local_region.handle(), remote_region.handle(), 0, page, 0, 0, page, 0, page, 1, 0});
    if (read) transfer.read();
}

void Pages::apply(std::vector<std::uint8_t>& target, const std::vector<std::uint8_t>& source, bool read) const {
    for (std::size_t i = 0; i < local.size(); ++i) {
        const std::uint64_t from = (read ? remote[i] : local[i]) * page;
        const std::uint64_t to = (read ? local[i] : remote[i]) * page;
        std::memcpy(target.data() + to, source.data() + from, page);
    }
}

std::unique_ptr<PeerSide> PeerSide::open(const std::string& device, const std::string& path, std::string* why) {
    if (::access(FAKE_DRIVER, R_OK) == 0) ::setenv("PEGAFLOW_LIBCUDA", FAKE_DRIVER, 0);
    FabricOptions options;
    options.backends = {"cuda"};
    options.options["cuda"] = {{"path", path}, {"calibrate", "off"}};
    auto fabric = Fabric::open(options);
    if (!fabric) return *why = fabric.error().message, nullptr;
    std::unique_ptr<PeerSide> side(new PeerSide);
    side->fabric_ = std::move(*fabric);
    const auto found = side->fabric_->device(device);
    if (!found) return *why = found.error().message, nullptr;
    side->device_ = *found;
    auto memory = side->device_->allocate(PEGA_MEMORY_GPU, kPeerBytes, PEGA_REGION_SHARED);
    if (!memory) return *why = memory.error().message, nullptr;
    auto staging = side->device_->allocate(PEGA_MEMORY_HOST, kPeerBytes);
    if (!staging) return *why = staging.error().message, nullptr;
    auto own = side->device_->open_channel();
    if (!own) return *why = own.error().message, nullptr;
    side->memory_ = std::move(*memory);
    side->staging_ = std::move(*staging);
    side->own_ = std::move(*own);
    return side;
}

PeerSide::~PeerSide() {
    own_ = {};
    memory_ = {};
    staging_ = {};
}

Result<std::uint64_t> PeerSide::run(Channel& channel, Transfer& transfer) {
    PEGA_ASSIGN(const Completion done, channel.submit_wait(transfer));
    return done.wait();
}

void PeerSide::write(Region& region, const std::vector<std::uint8_t>& bytes) {
    std::memcpy(staging_.address(), bytes.data(), bytes.size());
    Transfer transfer;
    transfer.flat(region, staging_).range(0, 0, bytes.size()).read();
    ASSERT_TRUE(run(own_, transfer));
}

std::vector<std::uint8_t> PeerSide::read(Region& region) {
    Transfer transfer;
    transfer.flat(region, staging_).range(0, 0, region.length());
    EXPECT_TRUE(run(own_, transfer));
    const auto* bytes = static_cast<const std::uint8_t*>(staging_.address());
    return {bytes, bytes + region.length()};
}

}  // namespace pegaflow

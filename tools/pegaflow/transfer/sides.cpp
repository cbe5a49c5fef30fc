// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/transfer/sides.hpp"

#include <algorithm>
#include <cstring>

namespace pegaflow::cli {

Result<std::string> choose_device(const FabricOptions& options, const std::string& asked, DeviceInfo* info) {
    PEGA_ASSIGN(const auto fabric, Fabric::open(options));
    const DeviceInfo* chosen = nullptr;
    for (const DeviceInfo& device : fabric->devices()) {
        const bool better = chosen == nullptr || (chosen->kind != PEGA_MEMORY_GPU && device.kind == PEGA_MEMORY_GPU);
        if (asked.empty() ? better : device.name == asked) chosen = &device;
    }
    if (chosen == nullptr) return fail(Code::kNotFound, "device " + asked + " is not here; `pegaflow plugins` says what is");
    *info = *chosen;
    return chosen->name;
}

Result<Sides> Sides::open(const FabricOptions& options, const std::string& device) {
    Sides s;
    PEGA_ASSIGN(s.fabric_, Fabric::open(options));
    PEGA_ASSIGN(s.device_, s.fabric_->device(device));
    PEGA_ASSIGN(s.channel_, s.device_->open_channel());
    return s;
}

Result<Region> Sides::allocate_host(std::uint64_t bytes, HugePages pages) {
    if (pages != HugePages::kOff) {
        auto memory = HostMemory::huge(bytes);
        if (memory) {
            PEGA_ASSIGN(Region region, device_->register_address(memory->address(), bytes));
            memory_.push_back(std::move(*memory));
            return region;
        }
        if (pages == HugePages::k2M) return fail(memory.error());
    }
    huge_ = false;
    return device_->allocate(PEGA_MEMORY_HOST, bytes);
}

Result<void> Sides::allocate(std::uint64_t bytes, std::uint64_t staging_bytes, HugePages pages) {
    huge_ = true;
    const std::uint32_t kind = device_->info().kind;
    PEGA_ASSIGN(local_, kind == PEGA_MEMORY_HOST ? allocate_host(bytes, pages) : device_->allocate(kind, bytes));
    PEGA_ASSIGN(staging_, device_->allocate(PEGA_MEMORY_HOST, staging_bytes));
    return {};
}

Result<Sides> Sides::make(const FabricOptions& options, const std::string& device, std::uint64_t bytes,
                          std::uint64_t host_bytes, HugePages pages) {
    PEGA_ASSIGN(Sides s, open(options, device));
    PEGA_TRY(s.allocate(bytes, bytes, pages));
    PEGA_ASSIGN(s.remote_, s.allocate_host(host_bytes, pages));
    s.remote_bytes_ = host_bytes;
    return s;
}

Result<Sides> Sides::make_peer(const FabricOptions& options, const std::string& device, std::uint64_t bytes,
                               const Remote& remote) {
    PEGA_ASSIGN(Sides s, open(options, device));
    PEGA_TRY(s.allocate(bytes, std::max(bytes, remote.bytes), HugePages::kOff));
    PEGA_ASSIGN(s.remote_, s.device_->import_region(remote.descriptor));
    if (s.remote_.length() < remote.bytes) return fail(Code::kInvalid, "the peer's memory is smaller than --total needs");
    PEGA_ASSIGN(s.second_, s.device_->allocate(PEGA_MEMORY_HOST, remote.bytes));
    s.address_ = remote.address;
    s.remote_bytes_ = remote.bytes;
    return s;
}

Sides::~Sides() {
    channel_ = {};
    workers_.clear();
    for (Region* region : {&local_, &remote_, &staging_, &second_}) *region = {};
    fabric_.reset();
}

Result<Channel*> Sides::worker_channel(std::size_t thread) {
    while (workers_.size() <= thread) {
        PEGA_ASSIGN(Channel opened, channel());
        workers_.push_back(std::make_unique<Channel>(std::move(opened)));
    }
    return workers_[thread].get();
}

Result<void> Sides::copy(Region& local, Region& remote, bool read) {
    Transfer transfer;
    transfer.flat(local, remote).range(0, 0, std::min(local.length(), remote.length()));
    if (read) transfer.read();
    PEGA_ASSIGN(const Completion done, channel_.submit_wait(transfer));
    PEGA_TRY(done.wait());
    return {};
}

Result<void> Sides::upload(Region& to, std::uint64_t seed, bool pattern) {
    Region& image = to.kind() == PEGA_MEMORY_HOST ? to : staging_;
    auto* words = static_cast<std::uint64_t*>(image.address());
    if (pattern) {
        for (std::uint64_t i = 0; i < image.length() / 8; ++i) words[i] = (i + seed) * 0x9e3779b97f4a7c15ULL;
    } else {
        std::memset(words, 0xEE, image.length());
    }
    if (&image == &to) return {};
    return copy(to, staging_, true);
}

Result<void> Sides::prepare(bool to_device, std::uint64_t seed) {
    PEGA_TRY(upload(local_, seed, !to_device));
    return upload(remote_, seed, to_device);
}

Result<const std::byte*> Sides::image(Region& of, Region& staging) {
    if (of.kind() == PEGA_MEMORY_HOST) return static_cast<const std::byte*>(of.address());
    PEGA_TRY(copy(of, staging, false));
    return static_cast<const std::byte*>(staging.address());
}

Result<std::uint64_t> Sides::check(const std::vector<Scatter>& scatters) {
    PEGA_ASSIGN(const std::byte* const local, image(local_, staging_));
    PEGA_ASSIGN(const std::byte* const remote, image(remote_, second_));
    std::uint64_t wrong = 0;
    for (const Scatter& scatter : scatters) wrong += scatter.wrong_bytes(local, remote);
    if (!witness_) return wrong;
    PEGA_ASSIGN(const bool same, witness_({remote, remote_bytes_}));
    return same ? wrong : remote_bytes_;
}

}  // namespace pegaflow::cli

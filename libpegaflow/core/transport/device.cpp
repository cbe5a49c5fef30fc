// SPDX-License-Identifier: Apache-2.0
#include "core/transport/device.hpp"

#include <fmt/format.h>

#include "base/log.hpp"
#include "core/plugin/last_words.hpp"
#include "pegaflow/abi/ext/durable.h"
#include "pegaflow/abi/ext/notify.h"

namespace pegaflow {

Result<Region> Device::allocate(std::uint32_t kind, std::uint64_t length, std::uint32_t flags) {
    pega_memory memory{};
    memory.size = sizeof memory;
    memory.kind = kind;
    memory.source = PEGA_SOURCE_ALLOCATE;
    memory.flags = flags;
    memory.length = length;
    return register_memory(memory);
}

Result<Region> Device::register_address(void* address, std::uint64_t length, std::uint32_t kind) {
    pega_memory memory{};
    memory.size = sizeof memory;
    memory.kind = kind;
    memory.source = PEGA_SOURCE_ADDRESS;
    memory.address = address;
    memory.length = length;
    return register_memory(memory);
}

}  // namespace pegaflow

namespace pegaflow::core {
namespace {

constexpr double kSilence = 10;                              // seconds after which a progress thread counts as stuck
constexpr std::uint64_t kFailuresInRow = 8;                  // from which on a device counts as failing
constexpr auto kNotifyStep = std::chrono::milliseconds(20);  // bounds what a back end that forgets to wake us costs

}  // namespace

Error OpenDevice::error(pega_status status, std::string_view what, std::string_view reason) const {
    const auto code = static_cast<Code>(status);
    return Error{code, fmt::format("{} on {}: {}{}", what, info_.name, to_string(code), reason), 0};
}

Result<Region> OpenDevice::register_memory(const pega_memory& memory) {
    auto impl = std::make_unique<Region::Impl>();
    const LastWords reason;
    const pega_status status = tables_.region->register_memory(handle_, &memory, &impl->handle);
    if (status != PEGA_OK) {
        impl->handle = nullptr;
        return fail(error(
            status,
            fmt::format("cannot register {} bytes (memory kind {}, source {})", memory.length, memory.kind, memory.source),
            reason.text()));
    }
    impl->device = this;
    impl->info.size = sizeof impl->info;
    tables_.region->info(impl->handle, &impl->info);
    return Region(std::move(impl));
}

Result<Region> OpenDevice::import_region(std::span<const std::byte> descriptor) {
    auto impl = std::make_unique<Region::Impl>();
    const LastWords reason;
    const pega_status status = tables_.region->import_descriptor(handle_, descriptor.data(), descriptor.size(), &impl->handle);
    if (status != PEGA_OK) {
        impl->handle = nullptr;
        return fail(
            error(status, fmt::format("cannot import a region descriptor of {} bytes", descriptor.size()), reason.text()));
    }
    impl->device = this;
    impl->info.size = sizeof impl->info;
    tables_.region->info(impl->handle, &impl->info);
    return Region(std::move(impl));
}

Result<std::vector<std::byte>> OpenDevice::address() const {
    std::vector<std::byte> bytes(256);
    std::uint64_t length = 0;
    pega_status status = tables_.backend->address(handle_, bytes.data(), bytes.size(), &length);
    if (status == PEGA_NO_MEMORY && length > bytes.size()) {
        bytes.resize(length);
        status = tables_.backend->address(handle_, bytes.data(), bytes.size(), &length);
    }
    if (status != PEGA_OK) return fail(error(status, "cannot tell the device address"));
    bytes.resize(length);
    return bytes;
}

Result<Channel> OpenDevice::open_channel(std::span<const std::byte> address, std::uint32_t queue_depth) {
    pega_channel_params params{};
    params.size = sizeof params;
    params.priority = 1;
    params.address = address.empty() ? nullptr : address.data();
    params.address_length = address.size();
    params.queue_depth = queue_depth;
    auto impl = std::make_unique<Channel::Impl>();
    const LastWords reason;
    const pega_status status = tables_.channel->open(handle_, &params, &impl->handle);
    if (status != PEGA_OK) {
        impl->handle = nullptr;
        return fail(error(status, "cannot open a channel", reason.text()));
    }
    impl->device = this;
    return Channel(std::move(impl));
}

const void* OpenDevice::extension(const char* id) const noexcept { return tables_.backend->extension(handle_, id); }

Result<void> OpenDevice::wait_notify(std::uint32_t value, std::uint64_t count, std::chrono::nanoseconds timeout) {
    const auto* notify = static_cast<const pega_ext_notify*>(extension(PEGA_EXT_NOTIFY));
    if (notify == nullptr) return fail(Code::kUnsupported, fmt::format("{} delivers no notifications", info_.name));
    const auto now = std::chrono::steady_clock::now();
    const auto deadline = timeout < decltype(now)::max() - now ? now + timeout : decltype(now)::max();
    struct Waiting {
        std::atomic<std::uint32_t>& count;
        ~Waiting() { count.fetch_sub(1); }
    };
    notify_waiters_.fetch_add(1, std::memory_order_seq_cst);  // before consume, so that a later poll tells us
    const Waiting waiting{notify_waiters_};
    for (;;) {
        const std::uint64_t seen = progress_count();
        const pega_status status = notify->consume(handle_, value, count);
        if (status == PEGA_OK) return {};
        if (status != PEGA_RETRY) return fail(error(status, "cannot consume a notification"));
        if (std::chrono::steady_clock::now() >= deadline) {
            return fail(Code::kDeadlineExceeded,
                        fmt::format("value {} arrived {} times, expected {}", value, notify->count(handle_, value), count));
        }
        wait_progress(seen, std::min(deadline, std::chrono::steady_clock::now() + kNotifyStep));
    }
}

DeviceHealth OpenDevice::health() const {
    DeviceHealth out{info_.name, busy() ? pending_.load(std::memory_order_relaxed) : 0,
                     failures_in_row_.load(std::memory_order_relaxed), false, ""};
    if (const double silence = heartbeat_.silence(); silence > kSilence) {
        out.stuck = true;
        out.problem = fmt::format("its progress thread has not run for {:.0f} s", silence);
    } else if (out.failures_in_row >= kFailuresInRow) {
        out.problem = fmt::format("the last {} transfers failed", out.failures_in_row);
    }
    return out;
}

}  // namespace pegaflow::core

namespace pegaflow {

Region::Region() noexcept = default;
Region::Region(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
Region::Region(Region&&) noexcept = default;
Region& Region::operator=(Region&&) noexcept = default;
Region::~Region() = default;

Region::Impl::~Impl() {
    if (handle == nullptr) return;
    pega_status status = device->tables().region->unregister(handle);
    while (status == PEGA_INVALID && device->busy() && !device->on_progress_thread()) {
        device->wait_progress(device->progress_count(), std::chrono::steady_clock::now() + std::chrono::milliseconds(1));
        status = device->tables().region->unregister(handle);
    }
    if (status != PEGA_OK) {
        base::log_error("core", "region on {} was dropped while transfers use it ({}); its registration is kept",
                        device->info().name, to_string(static_cast<Code>(status)));
    }
}

std::uint64_t Region::length() const noexcept { return impl_ ? impl_->info.length : 0; }
std::uint32_t Region::kind() const noexcept { return impl_ ? impl_->info.kind : 0; }
void* Region::address() const noexcept { return impl_ ? impl_->info.address : nullptr; }
pega_region* Region::handle() const noexcept { return impl_ ? impl_->handle : nullptr; }

Result<void> Region::flush() const {
    if (!impl_) return fail(Code::kInvalid, "this Region is empty");
    const auto* table = static_cast<const pega_ext_durable*>(impl_->device->extension(PEGA_EXT_DURABLE));
    if (table == nullptr) return fail(impl_->device->error(PEGA_UNSUPPORTED, "nothing is durable"));
    const pega_status status = table->flush(impl_->handle);
    if (status != PEGA_OK) return fail(impl_->device->error(status, "cannot flush a region"));
    return {};
}

Result<void> Region::discard(std::uint64_t offset, std::uint64_t length) const {
    if (!impl_) return fail(Code::kInvalid, "this Region is empty");
    const auto* table = static_cast<const pega_ext_durable*>(impl_->device->extension(PEGA_EXT_DURABLE));
    if (table == nullptr) return fail(impl_->device->error(PEGA_UNSUPPORTED, "nothing can be given back"));
    const pega_status status = table->discard(impl_->handle, offset, length);
    if (status != PEGA_OK)
        return fail(impl_->device->error(status, fmt::format("cannot give back {} bytes from {} on", length, offset)));
    return {};
}

Result<std::vector<std::byte>> Region::export_descriptor() const {
    if (!impl_) return fail(Code::kInvalid, "this Region is empty");
    const auto& table = *impl_->device->tables().region;
    std::vector<std::byte> bytes(256);
    std::uint64_t length = 0;
    const core::LastWords reason;
    pega_status status = table.export_descriptor(impl_->handle, bytes.data(), bytes.size(), &length);
    if (status == PEGA_NO_MEMORY && length > bytes.size()) {
        bytes.resize(length);
        status = table.export_descriptor(impl_->handle, bytes.data(), bytes.size(), &length);
    }
    if (status != PEGA_OK) return fail(impl_->device->error(status, "cannot export a region", reason.text()));
    bytes.resize(length);
    return bytes;
}

}  // namespace pegaflow

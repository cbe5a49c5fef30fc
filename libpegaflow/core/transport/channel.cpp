// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "base/log.hpp"
#include "core/transport/device.hpp"
#include "pegaflow/abi/ext/cancel.h"

namespace pegaflow {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kCloseStep = std::chrono::seconds(1);
constexpr auto kFullStep = std::chrono::milliseconds(1);  // room may come without a completion of this device

std::uint64_t as_ns(Clock::time_point when) { return static_cast<std::uint64_t>(when.time_since_epoch().count()); }

}  // namespace

Channel::Channel() noexcept = default;
Channel::Channel(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
Channel::Channel(Channel&&) noexcept = default;
Channel& Channel::operator=(Channel&&) noexcept = default;
Channel::~Channel() = default;

Channel::Impl::~Impl() {
    if (device == nullptr) return;
    const auto& table = *device->tables().channel;
    while (handle != nullptr && table.close(handle, as_ns(Clock::now() + kCloseStep)) == PEGA_PENDING) {
        base::log_warning("core", "a channel on {} waits for {} batches that the hardware still has", device->info().name,
                          in_flight.load());
    }
    handle = nullptr;
    while (in_flight.load(std::memory_order_acquire) != 0) {
        device->wait_progress(device->progress_count(), Clock::now() + std::chrono::milliseconds(1));
    }
}

pega_status Channel::state() const noexcept {
    if (!impl_ || impl_->handle == nullptr) return PEGA_CANCELED;
    return impl_->device->tables().channel->state(impl_->handle);
}

Result<Completion> Channel::submit(Transfer& transfer) {
    if (!impl_ || impl_->handle == nullptr) return fail(Code::kCanceled, "the channel is closed");
    Transfer::Impl& t = transfer.impl();
    PEGA_TRY(t.begin());
    if (auto sealed = t.seal(); !sealed) {
        t.end();
        return fail(sealed.error());
    }
    core::OpenDevice& device = *impl_->device;
    std::shared_ptr<Completion::State> state = t.fresh_state();
    state->reset(device.tables().backend->error_text);
    t.user_data = t.batch.user_data = device.in_flight().insert({&t, state, &impl_->in_flight});
    impl_->in_flight.fetch_add(1, std::memory_order_relaxed);
    device.batch_accepted();
    const pega_status status = device.tables().channel->submit(impl_->handle, &t.batch);
    if (status == PEGA_OK) return Completion(std::move(state));
    device.in_flight().take(t.user_data);
    impl_->in_flight.fetch_sub(1, std::memory_order_relaxed);
    device.batch_refused();
    t.end();
    return fail(device.error(status, "cannot submit a transfer"));
}

Result<Completion> Channel::submit_wait(Transfer& transfer) {
    for (;;) {
        if (!impl_) return fail(Code::kCanceled, "the channel is closed");
        const std::uint64_t seen = impl_->device->progress_count();
        auto completion = submit(transfer);
        if (completion || completion.error().code != Code::kQueueFull) return completion;
        const std::uint64_t deadline = transfer.impl().batch.deadline_ns;
        if (deadline != 0 && as_ns(Clock::now()) >= deadline) {
            return fail(Code::kDeadlineExceeded, "the queue stayed full until the transfer's deadline");
        }
        auto until = Clock::now() + kFullStep;
        if (deadline != 0) until = std::min(until, Clock::time_point(std::chrono::nanoseconds(deadline)));
        impl_->device->wait_progress(seen, until);
    }
}

Result<void> Channel::cancel(Transfer& transfer) {
    if (!impl_ || impl_->handle == nullptr) return fail(Code::kCanceled, "the channel is closed");
    const auto* table = static_cast<const pega_ext_cancel*>(impl_->device->extension(PEGA_EXT_CANCEL));
    if (table == nullptr) return fail(Code::kUnsupported, fmt::format("{} cannot cancel", impl_->device->info().name));
    const pega_status status = table->cancel(impl_->handle, transfer.impl().user_data);
    if (status != PEGA_OK) return fail(impl_->device->error(status, "cannot cancel a transfer"));
    return {};
}

Result<void> Channel::close(std::chrono::nanoseconds timeout) {
    if (!impl_ || impl_->handle == nullptr) return {};
    const pega_status status = impl_->device->tables().channel->close(impl_->handle, as_ns(Clock::now() + timeout));
    if (status == PEGA_PENDING) return fail(Code::kRetry, "the hardware still has batches of this channel");
    impl_->handle = nullptr;
    return {};
}

}  // namespace pegaflow

// SPDX-License-Identifier: Apache-2.0
// The progress engine of an open device: spins while batches are in flight that only polling moves, sleeps otherwise.
#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

#include "base/log.hpp"
#include "base/numa.hpp"
#include "core/plugin/last_words.hpp"
#include "core/transport/device.hpp"

namespace pegaflow::core {
namespace {

constexpr std::size_t kPollBatch = 128;
constexpr std::uint32_t kFetchedAhead = 8;  // more would push one another out again
constexpr int kSpinsBeforeSleep = 200;
constexpr int kSleepMs = 1000;  // bounds how long a lost wake-up could go unnoticed

}  // namespace

Result<std::unique_ptr<OpenDevice>> OpenDevice::open(const pega_host* host, const BackendTables& tables, DeviceInfo info,
                                                     const std::vector<pega_option>& options) {
    std::unique_ptr<OpenDevice> device(new OpenDevice(tables, std::move(info)));
    pega_open_params params{};
    params.size = sizeof params;
    params.index = device->info_.index;
    params.option_count = static_cast<std::uint32_t>(options.size());
    params.options = options.data();
    const LastWords reason;
    const pega_status status = tables.backend->open(host, &params, &device->handle_);
    if (status != PEGA_OK) {
        device->handle_ = nullptr;
        return fail(device->error(status, "cannot open the device", reason.text()));
    }
    device->capabilities_.size = sizeof device->capabilities_;
    tables.backend->capabilities(device->handle_, &device->capabilities_);
    device->wait_ = static_cast<const pega_ext_wait*>(tables.backend->extension(device->handle_, PEGA_EXT_WAIT));
    device->wake_fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (device->wake_fd_ < 0) return fail(Code::kNoMemory, "cannot create an eventfd", errno);
    auto thread = base::start_thread([raw = device.get()] { raw->run(); });
    if (!thread) {
        return fail(thread.error().code,
                    fmt::format("cannot start the progress thread of {}: {}", device->info_.name, thread.error().message));
    }
    device->thread_ = std::move(*thread);
    return device;
}

OpenDevice::~OpenDevice() {
    stop_.store(true, std::memory_order_release);
    if (thread_.joinable()) {
        const std::uint64_t one = 1;
        [[maybe_unused]] const auto written = ::write(wake_fd_, &one, sizeof one);
        if (wait_ != nullptr) wait_->interrupt(handle_);
        thread_.join();
    }
    if (handle_ != nullptr) tables_.backend->close(handle_);
    if (wake_fd_ >= 0) ::close(wake_fd_);
}

void OpenDevice::batch_accepted() noexcept {
    pending_.fetch_add(1, std::memory_order_seq_cst);  // pairs with sleep(): one of the two sees the other
    // Back ends with threads of their own make their wait_fd readable, and those with a wait of their own end it; the others
    // move only when polled.
    if (wait_ == nullptr && (capabilities_.flags & PEGA_CAP_OWN_THREADS) == 0 && sleeping_.load(std::memory_order_seq_cst)) {
        const std::uint64_t one = 1;
        [[maybe_unused]] const auto written = ::write(wake_fd_, &one, sizeof one);
    }
}

std::uint64_t OpenDevice::wait_progress(std::uint64_t seen, std::chrono::steady_clock::time_point deadline) {
    std::unique_lock lock(progress_mutex_);
    progress_waiters_.fetch_add(1, std::memory_order_seq_cst);
    progress_changed_.wait_until(lock, deadline, [&] { return progress_.load(std::memory_order_seq_cst) != seen; });
    progress_waiters_.fetch_sub(1, std::memory_order_relaxed);
    return progress_.load(std::memory_order_acquire);
}

void OpenDevice::note_progress() {
    progress_.fetch_add(1, std::memory_order_seq_cst);
    if (progress_waiters_.load(std::memory_order_seq_cst) == 0) return;
    const std::lock_guard lock(progress_mutex_);
    progress_changed_.notify_all();
}

void OpenDevice::dispatch(const pega_completion& record) {
    if ((record.flags & PEGA_COMPLETION_TERMINAL) == 0) {
        Transfer::Impl* transfer = in_flight_.find(record.user_data);
        if (transfer != nullptr && transfer->rest.on_mark) transfer->rest.on_mark(record.landed_spans);
        return;
    }
    InFlightTable::Entry entry = in_flight_.take(record.user_data);
    if (entry.transfer == nullptr) {
        base::log_error("core", "{} reported the end of a batch that is not in flight ({:#x}); the back end is broken",
                        info_.name, record.user_data);
        return;
    }
    if (record.status == PEGA_OK) {
        failures_in_row_.store(0, std::memory_order_relaxed);
    } else if (record.status != PEGA_CANCELED) {
        failures_in_row_.fetch_add(1, std::memory_order_relaxed);
    }
    entry.transfer->run_on_done(record);
    entry.state->finish(record);
    entry.channel_count->fetch_sub(1, std::memory_order_release);
    pending_.fetch_sub(1, std::memory_order_acq_rel);
}

void OpenDevice::take(const std::vector<pega_completion>& records, std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i) {
        if (i % kFetchedAhead == 0 && count > 1) in_flight_.fetch_ahead({&records[i], std::min(count - i, kFetchedAhead)});
        dispatch(records[i]);
    }
    // A poll may have taken in a notification without ending any batch.
    if (count > 0 || notify_waiters_.load(std::memory_order_seq_cst) != 0) note_progress();
}

bool OpenDevice::poll_once(std::vector<pega_completion>& records) {
    records.front().size = sizeof(pega_completion);
    const std::uint32_t count = tables_.completion->poll(handle_, records.data(), static_cast<std::uint32_t>(records.size()));
    take(records, count);
    return count > 0;
}

void OpenDevice::sleep() {
    sleeping_.store(true, std::memory_order_seq_cst);
    const bool only_polling_moves = (capabilities_.flags & PEGA_CAP_OWN_THREADS) == 0;
    const bool work =
        (only_polling_moves && pending_.load(std::memory_order_seq_cst) != 0) || stop_.load(std::memory_order_acquire);
    if (!work && tables_.completion->arm(handle_) == PEGA_OK) {
        pollfd fds[2] = {{wake_fd_, POLLIN, 0}, {tables_.completion->wait_fd(handle_), POLLIN, 0}};
        ::poll(fds, 2, kSleepMs);
        std::uint64_t drained = 0;
        [[maybe_unused]] const auto read_bytes = ::read(wake_fd_, &drained, sizeof drained);
        note_progress();
    }
    sleeping_.store(false, std::memory_order_seq_cst);
}

void OpenDevice::run() {
    ::pthread_setname_np(::pthread_self(), fmt::format("pega-{}", info_.name).substr(0, 15).c_str());
    if (info_.numa_node != PEGA_NUMA_ANY) base::bind_thread_to_node(info_.numa_node);
    if (wait_ != nullptr) {
        run_waiting();
    } else {
        run_polling();
    }
}

void OpenDevice::run_waiting() {
    std::vector<pega_completion> records(kPollBatch);
    while (!stop_.load(std::memory_order_acquire)) {
        heartbeat_.beat();
        records.front().size = sizeof(pega_completion);
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kSleepMs);
        const std::uint32_t count =
            wait_->wait(handle_, records.data(), static_cast<std::uint32_t>(records.size()),
                        static_cast<std::uint64_t>(std::chrono::nanoseconds(deadline.time_since_epoch()).count()));
        take(records, count);
    }
}

void OpenDevice::run_polling() {
    std::vector<pega_completion> records(kPollBatch);
    int idle = 0;
    while (!stop_.load(std::memory_order_acquire)) {
        heartbeat_.beat();
        if (poll_once(records)) {
            idle = 0;
        } else if (++idle >= kSpinsBeforeSleep || pending_.load(std::memory_order_acquire) == 0) {
            sleep();
            idle = 0;
        } else {
            std::this_thread::yield();
        }
    }
}

}  // namespace pegaflow::core

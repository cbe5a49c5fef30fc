// SPDX-License-Identifier: Apache-2.0
#include "core/transport/transfer.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <thread>

#include <cassert>

namespace pegaflow {
namespace {

constexpr std::chrono::microseconds kWaitAwake{200};

}  // namespace

namespace {

// The transfer whose on_done runs on this thread; null once the callback has destroyed it or submitted it again.
thread_local Transfer::Impl* t_ending = nullptr;

}  // namespace

Transfer::Impl::~Impl() {
    wait_ended();
    if (t_ending == this) t_ending = nullptr;
}

Result<void> Transfer::Impl::begin() {
    if (t_ending == this) {
        t_ending = nullptr;
        return {};
    }
    std::uint32_t idle = 0;
    if (!busy.compare_exchange_strong(idle, 1, std::memory_order_acq_rel)) {
        return fail(Code::kInvalid, "the transfer is in flight; it can be submitted again after its completion");
    }
    return {};
}

void Transfer::Impl::end() noexcept {
    busy.store(0, std::memory_order_release);
    busy.notify_all();
}

void Transfer::Impl::run_on_done(const pega_completion& record) {
    const auto callback = std::move(on_done);  // it may destroy the transfer, and with it the function that runs
    on_done = nullptr;
    if (callback) {
        t_ending = this;
        callback(record);
        if (std::exchange(t_ending, nullptr) != this) return;
    }
    end();
}

void Transfer::Impl::wait_ended() noexcept {
    if (t_ending == this) return;  // its own callback asks: the batch is over
    busy.wait(1, std::memory_order_acquire);
}

std::shared_ptr<Completion::State> Transfer::Impl::fresh_state() {
    for (auto& state : states) {  // both at once: from the first submit on, nothing is left to allocate
        if (!state) state = std::make_shared<Completion::State>();
    }
    for (const auto& state : states) {
        if (state.use_count() == 1) return state;
    }
    return states[0] = std::make_shared<Completion::State>();
}

Transfer::Transfer() : impl_(std::make_unique<Impl>()) { clear(); }
Transfer::Transfer(Transfer&&) noexcept = default;
Transfer& Transfer::operator=(Transfer&&) noexcept = default;
Transfer::~Transfer() = default;

Transfer& Transfer::clear() {
    Impl& t = *impl_;
    t.wait_ended();
    t.batch = {};
    t.batch.size = sizeof t.batch;
    t.batch.op = PEGA_OP_WRITE;
    t.batch.span_size = sizeof(pega_span);
    t.batch.priority = 1;
    t.local_offsets.clear();
    t.remote_offsets.clear();
    t.lengths.clear();
    t.has_flat = false;
    t.on_done = nullptr;
    if (!std::exchange(t.more, false)) return *this;
    Impl::More& rest = t.rest;
    rest.spans.clear();
    rest.local_index.clear();
    rest.remote_index.clear();
    rest.stream = {};
    rest.notify = {};
    rest.has_stream = rest.has_notify = rest.has_durable = rest.has_digest = false;
    rest.sums_computed = 0;
    rest.on_mark = nullptr;
    return *this;
}

Transfer& Transfer::read() { return impl_->batch.op = PEGA_OP_READ, *this; }
Transfer& Transfer::write() { return impl_->batch.op = PEGA_OP_WRITE, *this; }

Transfer& Transfer::indices(std::span<const std::uint64_t> local, std::span<const std::uint64_t> remote) {
    Impl::More& rest = impl_->with_more();
    rest.local_index.assign(local.begin(), local.end());
    rest.remote_index.assign(remote.begin(), remote.end());
    return *this;
}

Transfer& Transfer::span(const pega_span& span) { return impl_->with_more().spans.push_back(span), *this; }
Transfer& Transfer::mark_every(std::uint32_t spans) { return impl_->batch.mark_every = spans, *this; }

Transfer& Transfer::flat(const Region& local, const Region& remote) {
    impl_->batch.local_region = local.handle();
    impl_->batch.remote_region = remote.handle();
    impl_->has_flat = true;
    return *this;
}

Transfer& Transfer::range(std::uint64_t local_offset, std::uint64_t remote_offset, std::uint64_t length) {
    impl_->local_offsets.push_back(local_offset);
    impl_->remote_offsets.push_back(remote_offset);
    impl_->lengths.push_back(length);
    return *this;
}

Transfer& Transfer::deadline(std::chrono::steady_clock::time_point when) {
    const bool none = when == std::chrono::steady_clock::time_point::max();
    impl_->batch.deadline_ns = none ? 0 : static_cast<std::uint64_t>(when.time_since_epoch().count());
    return *this;
}

Transfer& Transfer::priority(std::uint32_t priority) { return impl_->batch.priority = priority, *this; }

Transfer& Transfer::notify(std::uint32_t value) {
    Impl::More& rest = impl_->with_more();
    rest.notify.value = value;
    rest.has_notify = true;
    return *this;
}

Transfer& Transfer::durable() { return impl_->with_more().has_durable = true, *this; }
Transfer& Transfer::digests() { return impl_->with_more().has_digest = true, *this; }

std::span<const std::uint64_t> Transfer::digest_sums() const noexcept {
    if (impl_->rest.sums_computed == 0) return {};
    return impl_->rest.sums;
}

Transfer& Transfer::wait_event(pega_event* event) {
    Impl::More& rest = impl_->with_more();
    rest.stream.wait = event;
    rest.has_stream = true;
    return *this;
}

Transfer& Transfer::record_event(pega_event* event) {
    Impl::More& rest = impl_->with_more();
    rest.stream.record = event;
    rest.has_stream = true;
    return *this;
}

Transfer& Transfer::on_mark(std::function<void(std::uint64_t)> callback) {
    return impl_->with_more().on_mark = std::move(callback), *this;
}
Transfer& Transfer::on_done(std::function<void(const pega_completion&)> callback) {
    return impl_->on_done = std::move(callback), *this;
}

Result<void> Transfer::Impl::seal() {
    batch.format = has_flat ? PEGA_FORMAT_FLAT : PEGA_FORMAT_SPANS;
    batch.local_offsets = local_offsets.data();
    batch.remote_offsets = remote_offsets.data();
    batch.lengths = lengths.data();
    batch.flat_count = lengths.size();
    batch.options = nullptr;
    if (!more) return {};  // clear() left no spans, indices and options in the batch
    if (has_flat && !rest.spans.empty()) return fail(Code::kInvalid, "a transfer has either spans or flat ranges, not both");
    if (rest.local_index.size() != rest.remote_index.size()) {
        return fail(Code::kInvalid,
                    fmt::format("index arrays differ: {} local, {} remote", rest.local_index.size(), rest.remote_index.size()));
    }
    batch.spans = rest.spans.data();
    batch.span_count = rest.spans.size();
    batch.local_index = rest.local_index.data();
    batch.remote_index = rest.remote_index.data();
    batch.index_count = rest.local_index.size();
    seal_options();
    return {};
}

void Transfer::Impl::seal_options() {
    const auto add = [this](pega_batch_option& base, std::size_t bytes, std::uint32_t kind, std::uint32_t flags) {
        base = {static_cast<std::uint32_t>(bytes), kind, flags, 0, batch.options};
        batch.options = &base;
    };
    if (rest.has_stream) add(rest.stream.base, sizeof rest.stream, PEGA_OPTION_STREAM, 0);
    if (rest.has_notify) add(rest.notify.base, sizeof rest.notify, PEGA_OPTION_NOTIFY, 0);
    rest.sums_computed = 0;
    if (rest.has_digest && !has_flat) {
        rest.sums.resize(rest.local_index.size());
        rest.digest.sums = rest.sums.data();
        rest.digest.computed = &rest.sums_computed;
        add(rest.digest.base, sizeof rest.digest, PEGA_OPTION_DIGEST, PEGA_OPTION_HINT);
    }
    if (rest.has_durable) add(rest.durable.base, sizeof rest.durable, PEGA_OPTION_DURABLE, 0);
}

void Completion::State::reset(const char* (*text)(std::int32_t)) {
    static_cast<void>(done());  // orders this after what the last batch's finish() wrote
    phase.store(kUnderWay, std::memory_order_relaxed);
    record = {};
    error_text = text;
}

void Completion::State::finish(const pega_completion& terminal) {
    record = terminal;
    if (phase.exchange(kDone, std::memory_order_acq_rel) != kAwaited) return;
    std::vector<std::coroutine_handle<>> resume;
    {
        const std::lock_guard lock(mutex);
        resume.swap(coroutines);
        changed.notify_all();
    }
    for (const std::coroutine_handle<> waiter : resume) waiter.resume();
}

bool Completion::State::await() noexcept {
    std::uint32_t was = kUnderWay;
    return phase.compare_exchange_strong(was, kAwaited, std::memory_order_acq_rel) || was == kAwaited;
}

Completion::Completion(std::shared_ptr<State> state) noexcept : state_(std::move(state)) {}

bool Completion::done() const noexcept { return state_ == nullptr || state_->done(); }

const pega_completion& Completion::record() const noexcept {
    assert(state_ != nullptr && done());
    return state_->record;
}

Result<std::uint64_t> Completion::wait() const { return wait_for(std::chrono::nanoseconds::max()); }

Result<std::uint64_t> Completion::wait_for(std::chrono::nanoseconds timeout) const {
    if (state_ == nullptr) return fail(Code::kInvalid, "this Completion belongs to no batch");
    // Most transfers are shorter than it takes to be woken.
    const auto patience = std::chrono::steady_clock::now() + std::min<std::chrono::nanoseconds>(timeout, kWaitAwake);
    while (!done() && std::chrono::steady_clock::now() < patience) std::this_thread::yield();
    if (!done()) {
        std::unique_lock lock(state_->mutex);
        const auto ended = [&] { return !state_->await(); };
        if (timeout == std::chrono::nanoseconds::max()) {
            state_->changed.wait(lock, ended);
        } else if (!state_->changed.wait_for(lock, timeout, ended)) {
            return fail(Code::kDeadlineExceeded, "the transfer has not ended yet");
        }
    }
    const pega_completion& record = state_->record;
    if (record.status == PEGA_OK) return record.bytes;
    const char* text =
        record.native_code != 0 && state_->error_text != nullptr ? state_->error_text(record.native_code) : nullptr;
    if (text == nullptr) text = "";
    return fail(
        static_cast<Code>(record.status),
        fmt::format("transfer ended as {}{}{}", to_string(static_cast<Code>(record.status)), *text != '\0' ? ": " : "", text),
        record.native_code);
}

bool Completion::await_suspend(std::coroutine_handle<> waiter) const {
    if (state_ == nullptr) return false;
    const std::lock_guard lock(state_->mutex);
    if (!state_->await()) return false;
    state_->coroutines.push_back(waiter);
    return true;
}

}  // namespace pegaflow

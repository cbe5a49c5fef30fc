// SPDX-License-Identifier: Apache-2.0

#include "bind.hpp"
#include "convert.hpp"
#include "fabric.hpp"
#include "time.hpp"

namespace pegaflow::python {
namespace {

using Ranges = std::vector<std::tuple<std::uint64_t, std::uint64_t, std::uint64_t>>;

// What the batch's callbacks do: no Python in them, so that a progress thread never waits for the interpreter.
void follow(TransferHandle& t, const std::shared_ptr<Progress>& progress) {
    t.transfer->on_mark([progress](std::uint64_t landed) {
        const std::lock_guard lock(progress->mutex);
        progress->landed_spans = landed;
        progress->changed.notify_all();
    });
    t.transfer->on_done([progress, spans = t.spans](const pega_completion& record) {
        const std::lock_guard lock(progress->mutex);
        if (record.status == PEGA_OK) progress->landed_spans = spans;
        progress->done = true;
        progress->changed.notify_all();
    });
}

CompletionHandle submit(const ChannelPtr& channel, const TransferPtr& t, bool wait) {
    Transfer& transfer = t->editable();
    const auto forever = std::chrono::steady_clock::time_point::max();
    transfer.deadline(t->timeout == std::chrono::nanoseconds::max() ? forever : std::chrono::steady_clock::now() + t->timeout);
    const auto progress = std::make_shared<Progress>();
    follow(*t, progress);
    const auto before = std::exchange(t->progress, progress);
    Result<Completion> accepted = unlocked([&] {
        const std::lock_guard lock(channel->mutex);
        return wait ? channel->channel.submit_wait(transfer) : channel->channel.submit(transfer);
    });
    if (!accepted) t->progress = before;
    return {channel, t, progress, take(std::move(accepted))};
}

CompletionHandle copy(const ChannelPtr& channel, const RegionPtr& local, const RegionPtr& remote,
                      const std::optional<Ranges>& ranges, bool read) {
    const auto t = std::make_shared<TransferHandle>();
    t->transfer->flat(local->region, remote->region);
    t->regions = {local, remote};
    if (read) t->transfer->read();
    if (!ranges) {
        if (local->region.length() != remote->region.length())
            raise_invalid("the regions differ in length: say with ranges=[(local offset, remote offset, length)] what to move");
        t->transfer->range(0, 0, local->region.length());
    } else {
        for (const auto& [local_offset, remote_offset, length] : *ranges)
            t->transfer->range(local_offset, remote_offset, length);
    }
    return submit(channel, t, true);
}

void cancel(const CompletionHandle& c) {
    if (c.completion.done() || c.transfer->progress != c.progress) return;  // over; the transfer may be in flight again
    take_unlocked([&]() -> Result<void> {
        const std::lock_guard lock(c.channel->mutex);
        if (!c.channel->channel) return {};  // closed: it is over
        PEGA_TRY(c.channel->channel.cancel(*c.transfer->transfer));
        return {};
    });
}

void close(ChannelHandle& channel, Seconds timeout) {
    const auto limit = to_duration(timeout);
    take_unlocked([&]() -> Result<void> {
        const std::lock_guard lock(channel.mutex);
        if (!channel.channel) return {};
        PEGA_TRY(channel.channel.close(std::min<std::chrono::nanoseconds>(limit, std::chrono::hours(24))));
        return {};
    });
}

bool wait_spans(const CompletionHandle& c, std::uint64_t spans, Seconds timeout) {
    return wait_in_steps(timeout,
                         [&](std::chrono::nanoseconds step) {
                             std::unique_lock lock(c.progress->mutex);
                             return c.progress->changed.wait_for(
                                 lock, step, [&] { return c.progress->done || c.progress->landed_spans >= spans; });
                         }) &&
           (std::lock_guard(c.progress->mutex), c.progress->landed_spans >= spans);
}

std::uint64_t wait(const CompletionHandle& c, Seconds timeout) {
    const bool ended = wait_in_steps(
        timeout, [&](std::chrono::nanoseconds step) { return c.completion.wait_for(step).has_value() || c.completion.done(); });
    if (!ended) raise({Code::kDeadlineExceeded, "the transfer has not ended yet"});
    return take(c.completion.wait());
}

std::uint64_t landed_spans(const CompletionHandle& c) {
    const std::lock_guard lock(c.progress->mutex);
    return c.progress->landed_spans;
}

std::string state_name(ChannelHandle& channel) {
    const pega_status status = unlocked([&] {
        const std::lock_guard lock(channel.mutex);
        return channel.channel ? channel.channel.state() : static_cast<pega_status>(PEGA_CANCELED);
    });
    if (status == PEGA_OK) return "open";
    return status == PEGA_PENDING ? "connecting" : to_string(static_cast<Code>(status));
}

}  // namespace

void bind_channel(py::module_& module) {
    py::class_<CompletionHandle>(module, "Completion")
        .def("done", [](const CompletionHandle& c) { return c.completion.done(); })
        .def("wait", &wait, py::arg("timeout") = py::none())
        .def("wait_spans", &wait_spans, py::arg("spans"), py::arg("timeout") = py::none())
        .def_property_readonly("landed_spans", &landed_spans)
        .def("cancel", &cancel);
    py::class_<ChannelHandle, ChannelPtr>(module, "Channel")
        .def_property_readonly("state", &state_name)
        .def("submit", &submit, py::arg("transfer"), py::kw_only(), py::arg("wait") = true)
        .def(
            "write",
            [](const ChannelPtr& c, const RegionPtr& local, const RegionPtr& remote, const std::optional<Ranges>& ranges) {
                return copy(c, local, remote, ranges, false);
            },
            py::arg("local"), py::arg("remote"), py::arg("ranges") = py::none())
        .def(
            "read",
            [](const ChannelPtr& c, const RegionPtr& local, const RegionPtr& remote, const std::optional<Ranges>& ranges) {
                return copy(c, local, remote, ranges, true);
            },
            py::arg("local"), py::arg("remote"), py::arg("ranges") = py::none())
        .def("close", &close, py::arg("timeout") = 10.0)
        .def("__enter__", [](const ChannelPtr& c) { return c; })
        .def("__exit__", [](ChannelHandle& c, const py::args&) { close(c, 10.0); });
}

}  // namespace pegaflow::python

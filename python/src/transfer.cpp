// SPDX-License-Identifier: Apache-2.0

#include "bind.hpp"
#include "convert.hpp"
#include "fabric.hpp"
#include "time.hpp"

namespace pegaflow::python {

Transfer& TransferHandle::editable() {
    if (progress) {
        const std::lock_guard lock(progress->mutex);
        if (!progress->done) raise_invalid("the transfer is in flight: wait for its completion before changing it");
    }
    return *transfer;
}

namespace {

void clear(TransferHandle& t) {
    t.editable().clear();
    t.regions.clear();
    t.events.clear();
    t.spans = 0;
    t.timeout = std::chrono::nanoseconds::max();
}

void flat(TransferHandle& t, const RegionPtr& local, const RegionPtr& remote) {
    t.editable().flat(local->region, remote->region);
    t.regions.insert(t.regions.end(), {local, remote});
}

void indices(TransferHandle& t, py::handle local, py::handle remote) {
    const Indices l = to_indices(local, "local");
    const Indices r = to_indices(remote, "remote");
    if (l.size() != r.size()) raise_invalid(text("local has {} indices, remote {}", l.size(), r.size()));
    t.editable().indices(l, r);
}

struct Side {
    std::uint64_t base = 0;
    std::optional<std::uint64_t> stride;  // None = page_bytes
    std::uint64_t segment_stride = 0;
};

void span(TransferHandle& t, const RegionPtr& local, const RegionPtr& remote, std::uint64_t page_bytes, std::uint32_t segments,
          const Side& l, const Side& r) {
    pega_span out{};
    out.local_region = local->region.handle();
    out.remote_region = remote->region.handle();
    out.page_bytes = page_bytes;
    out.segments = segments;
    out.local_base = l.base;
    out.local_stride = l.stride.value_or(page_bytes);
    out.local_segment_stride = l.segment_stride;
    out.remote_base = r.base;
    out.remote_stride = r.stride.value_or(page_bytes);
    out.remote_segment_stride = r.segment_stride;
    t.editable().span(out);
    t.regions.insert(t.regions.end(), {local, remote});
    ++t.spans;
}

void wait_event(TransferHandle& t, const EventPtr& event) {
    t.editable().wait_event(event->event);
    t.events.push_back(event);
}

void record_event(TransferHandle& t, const EventPtr& event) {
    t.editable().record_event(event->event);
    t.events.push_back(event);
}

// A method that changes the transfer and returns it, so that calls can be chained.
template <class Change>
auto chained(Change change) {
    return [change](const TransferPtr& t) -> TransferPtr { return change(*t), t; };
}

template <class... Arguments>
auto chained(void (*change)(TransferHandle&, Arguments...)) {
    return [change](const TransferPtr& t, Arguments... arguments) -> TransferPtr { return change(*t, arguments...), t; };
}

}  // namespace

void bind_transfer(py::module_& module) {
    using Optional = std::optional<std::uint64_t>;
    py::class_<TransferHandle, TransferPtr>(module, "Transfer")
        .def(py::init([] { return std::make_shared<TransferHandle>(); }))
        .def("clear", chained([](TransferHandle& t) { clear(t); }))
        .def("read", chained([](TransferHandle& t) { t.editable().read(); }))
        .def("write", chained([](TransferHandle& t) { t.editable().write(); }))
        .def("flat", chained(&flat), py::arg("local"), py::arg("remote"))
        .def("range", chained(+[](TransferHandle& t, std::uint64_t local, std::uint64_t remote, std::uint64_t length) {
                 t.editable().range(local, remote, length);
             }),
             py::arg("local_offset"), py::arg("remote_offset"), py::arg("length"))
        .def("indices", chained(&indices), py::arg("local"), py::arg("remote"))
        .def(
            "span",
            [](const TransferPtr& t, const RegionPtr& local, const RegionPtr& remote, std::uint64_t page_bytes,
               std::uint32_t segments, std::uint64_t local_base, Optional local_stride, std::uint64_t local_segment_stride,
               std::uint64_t remote_base, Optional remote_stride, std::uint64_t remote_segment_stride) {
                span(*t, local, remote, page_bytes, segments, {local_base, local_stride, local_segment_stride},
                     {remote_base, remote_stride, remote_segment_stride});
                return t;
            },
            py::arg("local"), py::arg("remote"), py::arg("page_bytes"), py::kw_only(), py::arg("segments") = 1,
            py::arg("local_base") = 0, py::arg("local_stride") = py::none(), py::arg("local_segment_stride") = 0,
            py::arg("remote_base") = 0, py::arg("remote_stride") = py::none(), py::arg("remote_segment_stride") = 0)
        .def("mark_every", chained(+[](TransferHandle& t, std::uint32_t spans) { t.editable().mark_every(spans); }),
             py::arg("spans"))
        .def("notify", chained(+[](TransferHandle& t, std::uint32_t value) { t.editable().notify(value); }), py::arg("value"))
        .def("priority", chained(+[](TransferHandle& t, std::uint32_t priority) { t.editable().priority(priority); }),
             py::arg("priority"))
        .def("timeout", chained(+[](TransferHandle& t, Seconds seconds) {
                 t.editable();
                 t.timeout = to_duration(seconds);
             }),
             py::arg("seconds"))
        .def("wait_event", chained(&wait_event), py::arg("event"))
        .def("record_event", chained(&record_event), py::arg("event"));
}

}  // namespace pegaflow::python

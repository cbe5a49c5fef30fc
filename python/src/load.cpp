// SPDX-License-Identifier: Apache-2.0

#include "bind.hpp"
#include "convert.hpp"
#include "engine.hpp"
#include "time.hpp"

namespace pegaflow::python {
namespace {

// No Python in these, so that an engine thread never waits for the interpreter.
LoadCallbacks follow(const std::shared_ptr<LoadProgress>& progress) {
    LoadCallbacks out;
    out.on_layers = [progress](std::size_t landed) {
        const std::lock_guard lock(progress->mutex);
        progress->landed_layers = landed;
        progress->changed.notify_all();
    };
    out.on_done = [progress](Result<void> outcome) {
        const std::lock_guard lock(progress->mutex);
        progress->outcome = std::move(outcome);
        progress->changed.notify_all();
    };
    return out;
}

bool wait_layers(const LoadHandle& load, std::size_t layers, Seconds timeout) {
    LoadProgress& p = *load.progress;
    wait_in_steps(timeout, [&](std::chrono::nanoseconds step) {
        std::unique_lock lock(p.mutex);
        return p.changed.wait_for(lock, step, [&] { return p.outcome || p.landed_layers >= layers; });
    });
    const std::lock_guard lock(p.mutex);
    return p.landed_layers >= layers || (p.outcome && p.outcome->has_value());
}

bool done(const LoadHandle& load) { return load.progress->over(); }

std::size_t landed_layers(const LoadHandle& load) {
    const std::lock_guard lock(load.progress->mutex);
    return load.progress->landed_layers;
}

// Over is over: nothing to cancel is no error.
void cancel(const LoadHandle& load) {
    const Result<void> asked = unlocked([&] { return load.engine->engine->cancel_load(load.id); });
    if (!asked && asked.error().code != Code::kNotFound) raise(asked.error());
}

}  // namespace

LoadHandle start_load(const EnginePtr& engine, const std::string& instance_id, const py::object& layer_groups,
                      const py::object& loads, std::uint32_t tp_rank, std::int32_t device_id, Seconds timeout,
                      const py::object& wait_event) {
    const Loads arguments(layer_groups, loads);
    const WaitEvent event(wait_event);
    LoadRequest request;
    request.instance_id = instance_id;
    request.tp_rank = tp_rank;
    request.device_id = device_id;
    request.layer_groups = arguments.groups;
    request.loads = arguments.loads;
    request.wait_event = event.exported;
    request.local_event = event.handle();
    request.deadline = to_deadline(timeout);
    LoadHandle out{engine, std::make_shared<LoadProgress>()};
    std::erase_if(engine->events, [](const auto& kept) { return kept.first->over(); });
    if (event.local) engine->events.emplace_back(out.progress, event.local);
    try {
        out.id = take_unlocked([&] { return engine->engine->load_async(request, follow(out.progress)); });
    } catch (...) {  // it did not begin
        std::erase_if(engine->events, [&](const auto& kept) { return kept.first == out.progress; });
        throw;
    }
    return out;
}

void wait_load(const LoadHandle& load, Seconds timeout) {
    LoadProgress& p = *load.progress;
    const bool ended = wait_in_steps(timeout, [&](std::chrono::nanoseconds step) {
        std::unique_lock lock(p.mutex);
        return p.changed.wait_for(lock, step, [&] { return p.outcome.has_value(); });
    });
    if (!ended) raise({Code::kDeadlineExceeded, "the load has not ended yet"});
    const std::lock_guard lock(p.mutex);
    if (!*p.outcome) raise(p.outcome->error());
}

void bind_load(py::module_& module) {
    py::class_<LoadHandle>(module, "Load")
        .def("done", &done)
        .def("wait", &wait_load, py::arg("timeout") = py::none())
        .def("wait_layers", &wait_layers, py::arg("layers"), py::arg("timeout") = py::none())
        .def_property_readonly("landed_layers", &landed_layers)
        .def("cancel", &cancel);
}

}  // namespace pegaflow::python

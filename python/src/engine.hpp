// SPDX-License-Identifier: Apache-2.0
// engine.hpp - what Python's Engine and Load hold.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fabric.hpp"
#include "layer.hpp"
#include "pegaflow/engine.hpp"

namespace pegaflow::python {

// How far a load has come, told by the engine's threads.
struct LoadProgress {
    std::mutex mutex;
    std::condition_variable changed;
    std::size_t landed_layers = 0;        // guarded by mutex
    std::optional<Result<void>> outcome;  // guarded by mutex

    bool over() {
        const std::lock_guard lock(mutex);
        return outcome.has_value();
    }
};

struct EngineHandle {
    ~EngineHandle() {
        unlocked([this] { engine.reset(); });
    }
    FabricPtr fabric;
    std::map<std::string, std::vector<Memory>> memories;  // of registered workers, by instance; with the interpreter lock
    // Events that loads wait for, until these are over, whatever became of Python's Load; with the interpreter lock.
    std::vector<std::pair<std::shared_ptr<LoadProgress>, EventPtr>> events;
    std::unique_ptr<Engine> engine;
};
using EnginePtr = std::shared_ptr<EngineHandle>;  // owners: Python's Engine and its Loads

struct LoadHandle {
    EnginePtr engine;
    std::shared_ptr<LoadProgress> progress;  // shared with the load's callbacks
    LoadId id = 0;
};

// An event to wait for: exported bytes of another process's, or one of ours.
struct WaitEvent {
    explicit WaitEvent(const py::object& event);  // bytes, Event or None
    std::string exported;
    EventPtr local;
    pega_event* handle() const { return local ? local->event : nullptr; }
};

LoadHandle start_load(const EnginePtr& engine, const std::string& instance_id, const py::object& layer_groups,
                      const py::object& loads, std::uint32_t tp_rank, std::int32_t device_id, std::optional<double> timeout,
                      const py::object& wait_event);
// Returns when the load has ended; its failure, or DeadlineExceeded, as an exception.
void wait_load(const LoadHandle& load, std::optional<double> timeout);

}  // namespace pegaflow::python

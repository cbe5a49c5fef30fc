// SPDX-License-Identifier: Apache-2.0
#include "engine.hpp"

#include "bind.hpp"
#include "convert.hpp"
#include "query.hpp"
#include "time.hpp"

namespace pegaflow::python {

WaitEvent::WaitEvent(const py::object& event) {
    if (event.is_none()) return;
    if (py::isinstance<py::bytes>(event)) {
        exported = event.cast<std::string>();
    } else if (py::isinstance<EventHandle>(event)) {
        local = event.cast<EventPtr>();
    } else {
        throw py::type_error(std::string("wait_event: expected an Event, the bytes of an exported event or None, got ") +
                             Py_TYPE(event.ptr())->tp_name);
    }
}

namespace {

EnginePtr make_engine(const std::optional<FabricPtr>& fabric, const EngineOptions& options) {
    auto out = std::make_shared<EngineHandle>();
    if (fabric) {
        out->fabric = *fabric;
    } else {
        out->fabric = std::make_shared<FabricHandle>();
        out->fabric->fabric = take_unlocked([] { return Fabric::open(); });
    }
    out->engine = take_unlocked([&] { return Engine::create(options, *out->fabric->fabric); });
    return out;
}

void register_worker(EngineHandle& e, const std::string& instance_id, const std::string& name_space, const py::object& layers,
                     std::uint32_t tp_rank, std::uint32_t tp_size, std::uint32_t pp_rank, std::uint32_t world_size,
                     std::int32_t device_id, bool page_first, const std::string& dtype) {
    std::vector<Layer> list = to_layers(layers);
    resolve_gpus(list, *e.fabric->fabric);
    Worker worker = make_worker(std::move(list), instance_id, name_space, tp_rank, tp_size, pp_rank, world_size, device_id,
                                page_first, dtype);
    take_unlocked([&] { return e.engine->register_worker(worker.registration); });
    std::vector<Memory>& kept = e.memories[instance_id];
    std::move(worker.memories.begin(), worker.memories.end(), std::back_inserter(kept));
}

void unregister_instance(EngineHandle& e, const std::string& instance_id) {
    take_unlocked([&] { return e.engine->unregister_instance(instance_id); });
    e.memories.erase(instance_id);
}

SaveOutcome save(EngineHandle& e, const std::string& instance_id, const py::object& items, std::uint32_t tp_rank,
                 std::uint32_t pp_rank, std::int32_t device_id, Seconds timeout, const py::object& wait_event) {
    const Saves saves(items);
    const WaitEvent event(wait_event);
    SaveRequest request{instance_id,  tp_rank,        pp_rank,        device_id,
                        saves.layers, event.exported, event.handle(), to_deadline(timeout)};
    return take_unlocked([&] { return e.engine->save(request); });
}

py::object query(EngineHandle& e, const std::string& instance_id, const py::object& block_hashes, const std::string& req_id,
                 bool wait_for_full_prefix, std::uint32_t group_id, Seconds lease_time) {
    const Hashes hashes = to_hashes(block_hashes, "block_hashes");
    QueryRequest request{instance_id, hashes.views, req_id, group_id, wait_for_full_prefix, {}};
    if (lease_time) request.lease_time = to_duration(lease_time);
    return to_python(take_unlocked([&] { return e.engine->query(request); }));
}

void load(const EnginePtr& engine, const std::string& instance_id, const py::object& layer_groups, const py::object& loads,
          std::uint32_t tp_rank, std::int32_t device_id, Seconds timeout, const py::object& wait_event) {
    const LoadHandle handle = start_load(engine, instance_id, layer_groups, loads, tp_rank, device_id, timeout, wait_event);
    try {
        wait_load(handle, {});  // the deadline is the load's own
    } catch (py::error_already_set& error) {
        if (error.matches(PyExc_KeyboardInterrupt)) (void)unlocked([&] { return engine->engine->cancel_load(handle.id); });
        throw;
    }
}

void renew(EngineHandle& e, const py::object& lease, Seconds lease_time) {
    std::optional<std::chrono::nanoseconds> time;
    if (lease_time) time = to_duration(lease_time);
    const LeaseId id = to_lease(lease, "lease");
    take_unlocked([&] { return e.engine->renew(id, time); });
}

void close(EngineHandle& e, Seconds timeout) {
    const auto deadline = to_deadline(timeout);
    unlocked([&] { e.engine->close(deadline); });
    e.memories.clear();
}

py::dict stats(const EngineHandle& e) {
    using S = EngineStats;
    constexpr std::pair<const char*, std::uint64_t S::*> kFields[] = {
        {"pool_capacity_bytes", &S::pool_capacity_bytes},
        {"pool_used_bytes", &S::pool_used_bytes},
        {"pool_largest_free_bytes", &S::pool_largest_free_bytes},
        {"pool_alloc_failures", &S::pool_alloc_failures},
        {"pool_ready_bytes", &S::pool_ready_bytes},
        {"resident_blocks", &S::resident_blocks},
        {"resident_bytes", &S::resident_bytes},
        {"incomplete_blocks", &S::incomplete_blocks},
        {"incomplete_bytes", &S::incomplete_bytes},
        {"incomplete_dropped", &S::incomplete_dropped},
        {"block_hits", &S::block_hits},
        {"block_misses", &S::block_misses},
        {"insertions", &S::insertions},
        {"admission_rejections", &S::admission_rejections},
        {"evictions", &S::evictions},
        {"evicted_bytes", &S::evicted_bytes},
        {"evictions_offered", &S::evictions_offered},
        {"staging_bytes", &S::staging_bytes},
        {"quarantined_blocks", &S::quarantined_blocks},
        {"digest_mismatches", &S::digest_mismatches},
        {"save_requests", &S::save_requests},
        {"save_failures", &S::save_failures},
        {"saved_blocks", &S::saved_blocks},
        {"duplicate_blocks", &S::duplicate_blocks},
        {"save_bytes", &S::save_bytes},
        {"load_requests", &S::load_requests},
        {"load_failures", &S::load_failures},
        {"load_bytes", &S::load_bytes},
        {"loads_in_flight", &S::loads_in_flight},
        {"saves_in_flight", &S::saves_in_flight},
        {"leases", &S::leases},
        {"leases_expired", &S::leases_expired},
        {"queries", &S::queries},
        {"queue_full", &S::queue_full},
        {"canceled", &S::canceled},
        {"instances", &S::instances},
        {"workers", &S::workers},
    };
    const EngineStats now = unlocked([&] { return e.engine->stats(); });
    py::dict out;
    for (const auto& [name, field] : kFields) out[name] = now.*field;
    return out;
}

void bind_state(py::class_<EngineHandle, EnginePtr>& engine) {
    engine.def("instances", [](const EngineHandle& e) { return unlocked([&] { return e.engine->instances(); }); })
        .def("flush", [](EngineHandle& e) { take_unlocked([&] { return e.engine->flush(); }); })
        .def("cleanup_memory", [](EngineHandle& e) { return unlocked([&] { return e.engine->cleanup_memory(); }); })
        .def(
            "contains",
            [](const EngineHandle& e, const std::string& instance_id, const py::bytes& block_hash, std::uint32_t group_id) {
                const std::string hash = block_hash;
                return unlocked([&] { return e.engine->contains(instance_id, hash, group_id); });
            },
            py::arg("instance_id"), py::arg("block_hash"), py::arg("group_id") = 0)
        .def("stats", &stats)
        .def("close", &close, py::arg("timeout") = py::none())
        .def("__enter__", [](const EnginePtr& e) { return e; })
        .def("__exit__", [](EngineHandle& e, const py::args&) { close(e, {}); });
}

}  // namespace

void bind_engine(py::module_& module) {
    const EngineOptions defaults;
    py::class_<EngineHandle, EnginePtr> engine(module, "Engine");
    engine
        .def(py::init([](const std::optional<FabricPtr>& fabric, std::uint64_t pool_bytes, std::uint64_t block_bytes_hint,
                         bool hugepages, const std::string& pool_file, bool numa_affinity, const std::string& eviction_policy,
                         const std::string& admission_policy, double lease_time, double incomplete_block_time,
                         std::uint32_t max_queued_transfers, bool digests, bool verify_on_load) {
                 EngineOptions options;
                 options.pool_bytes = pool_bytes;
                 options.block_bytes_hint = block_bytes_hint;
                 options.hugepages = hugepages;
                 options.pool_file = pool_file;
                 options.numa_affinity = numa_affinity;
                 options.eviction_policy = eviction_policy;
                 options.admission_policy = admission_policy;
                 options.lease_time = to_duration(lease_time);
                 options.incomplete_block_time = to_duration(incomplete_block_time);
                 options.max_queued_transfers = max_queued_transfers;
                 options.digests = digests;
                 options.verify_on_load = verify_on_load;
                 return make_engine(fabric, options);
             }),
             py::arg("fabric") = py::none(), py::kw_only(), py::arg("pool_bytes") = defaults.pool_bytes,
             py::arg("block_bytes_hint") = 0, py::arg("hugepages") = false, py::arg("pool_file") = "",
             py::arg("numa_affinity") = true, py::arg("eviction_policy") = defaults.eviction_policy,
             py::arg("admission_policy") = "none", py::arg("lease_time") = 600.0, py::arg("incomplete_block_time") = 300.0,
             py::arg("max_queued_transfers") = defaults.max_queued_transfers, py::arg("digests") = true,
             py::arg("verify_on_load") = false)
        .def("register_worker", &register_worker, py::arg("instance_id"), py::arg("namespace"), py::arg("layers"),
             py::kw_only(), py::arg("tp_rank") = 0, py::arg("tp_size") = 1, py::arg("pp_rank") = 0, py::arg("world_size") = 1,
             py::arg("device_id") = 0, py::arg("page_first") = false, py::arg("dtype") = "")
        .def("unregister_instance", &unregister_instance, py::arg("instance_id"))
        .def("save", &save, py::arg("instance_id"), py::arg("saves"), py::kw_only(), py::arg("tp_rank") = 0,
             py::arg("pp_rank") = 0, py::arg("device_id") = 0, py::arg("timeout") = py::none(),
             py::arg("wait_event") = py::none())
        .def("query", &query, py::arg("instance_id"), py::arg("block_hashes"), py::arg("req_id"),
             py::arg("wait_for_full_prefix") = false, py::arg("group_id") = 0, py::kw_only(),
             py::arg("lease_time") = py::none())
        .def("renew", &renew, py::arg("lease"), py::arg("lease_time") = py::none())
        .def(
            "release",
            [](EngineHandle& e, const py::object& lease) {
                const LeaseId id = to_lease(lease, "lease");
                take_unlocked([&] { return e.engine->release(id); });
            },
            py::arg("lease"))
        .def("load", &load, py::arg("instance_id"), py::arg("layer_groups"), py::arg("loads"), py::kw_only(),
             py::arg("tp_rank") = 0, py::arg("device_id") = 0, py::arg("timeout") = py::none(),
             py::arg("wait_event") = py::none())
        .def("load_async", &start_load, py::arg("instance_id"), py::arg("layer_groups"), py::arg("loads"), py::kw_only(),
             py::arg("tp_rank") = 0, py::arg("device_id") = 0, py::arg("timeout") = py::none(),
             py::arg("wait_event") = py::none());
    bind_state(engine);
}

}  // namespace pegaflow::python

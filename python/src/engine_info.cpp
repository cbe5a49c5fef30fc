// SPDX-License-Identifier: Apache-2.0

#include "bind.hpp"
#include "errors.hpp"
#include "pegaflow/engine.hpp"

namespace pegaflow::python {

void bind_engine_info(py::module_& module) {
    py::class_<SaveOutcome>(module, "SaveOutcome")
        .def_readonly("saved_blocks", &SaveOutcome::saved_blocks)
        .def_readonly("duplicate_blocks", &SaveOutcome::duplicate_blocks)
        .def_readonly("bytes", &SaveOutcome::bytes)
        .def("__repr__", [](const SaveOutcome& s) {
            return text("SaveOutcome(saved_blocks={}, duplicate_blocks={}, bytes={})", s.saved_blocks, s.duplicate_blocks,
                        s.bytes);
        });
    py::class_<MemoryCleanup>(module, "MemoryCleanup")
        .def_readonly("evicted_blocks", &MemoryCleanup::evicted_blocks)
        .def_readonly("evicted_bytes", &MemoryCleanup::evicted_bytes)
        .def_readonly("reclaimed_bytes", &MemoryCleanup::reclaimed_bytes)
        .def_readonly("still_referenced_blocks", &MemoryCleanup::still_referenced_blocks);
    py::class_<WorkerInfo>(module, "WorkerInfo")
        .def_readonly("device_id", &WorkerInfo::device_id)
        .def_readonly("tp_rank", &WorkerInfo::tp_rank)
        .def_readonly("pp_rank", &WorkerInfo::pp_rank)
        .def_readonly("device", &WorkerInfo::device)
        .def_readonly("region_bytes", &WorkerInfo::region_bytes);
    py::class_<InstanceInfo>(module, "InstanceInfo")
        .def_readonly("instance_id", &InstanceInfo::instance_id)
        .def_readonly("namespace", &InstanceInfo::name_space)
        .def_readonly("tp_size", &InstanceInfo::tp_size)
        .def_readonly("world_size", &InstanceInfo::world_size)
        .def_readonly("page_first", &InstanceInfo::page_first)
        .def_readonly("sealed", &InstanceInfo::sealed)
        .def_readonly("layout_fingerprint", &InstanceInfo::layout_fingerprint)
        .def_readonly("workers", &InstanceInfo::workers);
}

}  // namespace pegaflow::python

// SPDX-License-Identifier: Apache-2.0
// layer.hpp - Python's Memory and Layer, and the registration of a worker from keyword arguments.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "array.hpp"
#include "pegaflow/engine.hpp"
#include "pegaflow/transfer.hpp"

namespace pegaflow::python {

struct Memory {
    MemoryDescription description;
    int cuda_device = -1;        // of an array that told it
    std::optional<Array> array;  // what the memory belongs to, kept alive
};

struct Layer {
    LayerRegistration registration;  // without its memory
    Memory memory;
};

// A worker's registration, and what must live as long as it is registered.
struct Worker {
    WorkerRegistration registration;
    std::vector<Memory> memories;  // one a layer
};

// Layers, or a mapping of layer names to arrays whose first dimension counts blocks.
std::vector<Layer> to_layers(const py::object& layers);

// Fills in the UUIDs of GPUs that arrays told by number. InvalidArgument when the number is missing and there are several.
void resolve_gpus(std::vector<Layer>& layers, const Fabric& fabric);

// The arguments that Engine.register_worker and EngineRpcClient.register_worker share.
Worker make_worker(std::vector<Layer> layers, const std::string& instance_id, const std::string& name_space,
                   std::uint32_t tp_rank, std::uint32_t tp_size, std::uint32_t pp_rank, std::uint32_t world_size,
                   std::int32_t device_id, bool page_first, const std::string& dtype);

}  // namespace pegaflow::python

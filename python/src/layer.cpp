// SPDX-License-Identifier: Apache-2.0
#include "layer.hpp"

#include "bind.hpp"
#include "convert.hpp"

namespace pegaflow::python {
namespace {

Memory memory_of_array(const py::object& object) {
    Memory out;
    Array array = Array::of(object);
    if (array.read_only) raise_invalid("the array is read-only, and a load writes into KV memory");
    out.description.kind = array.kind;
    out.description.source = PEGA_SOURCE_ADDRESS;
    out.description.address = reinterpret_cast<void*>(array.address);
    out.description.length = array.extent();
    out.cuda_device = array.cuda_device;
    out.array = std::move(array);
    return out;
}

Memory memory_of(const py::object& object) {
    return py::isinstance<Memory>(object) ? object.cast<Memory>() : memory_of_array(object);
}

Memory memory_at(std::uintptr_t address, std::uint64_t length, const std::string& kind, const std::string& device_uuid) {
    Memory out;
    out.description.kind = to_kind(kind);
    out.description.source = PEGA_SOURCE_ADDRESS;
    out.description.address = reinterpret_cast<void*>(address);
    out.description.length = length;
    out.description.device_uuid = device_uuid;
    return out;
}

Memory memory_in_shm(const std::string& name, std::uint64_t length, std::uint64_t offset) {
    Memory out;
    out.description.kind = PEGA_MEMORY_HOST;
    out.description.source = PEGA_SOURCE_SHM;
    out.description.handle = name.starts_with('/') ? name.substr(1) : name;
    out.description.length = length;
    out.description.offset = offset;
    return out;
}

Memory memory_by_ipc(const py::bytes& handle, const std::string& device_uuid, std::uint64_t length, std::uint64_t offset) {
    Memory out;
    out.description.kind = PEGA_MEMORY_GPU;
    out.description.source = PEGA_SOURCE_IPC;
    out.description.handle = handle;
    out.description.device_uuid = device_uuid;
    out.description.length = length;
    out.description.offset = offset;
    return out;
}

// Blocks first: (blocks, ...). K and V first: (2, blocks, ...).
Layer layer_from_array(const std::string& name, const py::object& object, bool kv_first, std::uint32_t storage_group) {
    Layer out;
    out.memory = memory_of_array(object);
    const Array& array = *out.memory.array;
    const std::size_t block_axis = kv_first ? 1 : 0;
    if (array.shape.size() <= block_axis || (kv_first && array.shape[0] != 2)) {
        raise_invalid(text("layer \"{}\": an array of {} dimensions is not of the shape {}", name, array.shape.size(),
                           kv_first ? "(2, blocks, ...)" : "(blocks, ...)"));
    }
    LayerRegistration& r = out.registration;
    r.name = name;
    r.num_blocks = static_cast<std::uint64_t>(array.shape[block_axis]);
    r.bytes_per_block = array.packed_bytes(block_axis + 1);
    r.segments = kv_first ? 2 : 1;
    r.kv_stride_bytes = kv_first ? static_cast<std::uint64_t>(array.strides[0]) : 0;
    const auto stride = static_cast<std::uint64_t>(array.strides[block_axis]);
    r.block_stride_bytes = stride == r.bytes_per_block || r.num_blocks == 1 ? 0 : stride;
    r.storage_group = storage_group;
    return out;
}

Layer make_layer(const std::string& name, const py::object& memory, std::uint64_t num_blocks, std::uint64_t bytes_per_block,
                 std::uint64_t kv_stride_bytes, std::uint32_t segments, std::uint64_t block_stride_bytes,
                 std::uint32_t storage_group) {
    return {{name, {}, num_blocks, bytes_per_block, kv_stride_bytes, segments, block_stride_bytes, storage_group},
            memory_of(memory)};
}

std::string uuid_of_gpu(const Fabric& fabric, int index) {
    std::string found;
    int count = 0;
    for (const DeviceInfo& device : fabric.devices()) {
        if (device.kind != PEGA_MEMORY_GPU || device.uuid.empty()) continue;
        if (index >= 0 && device.index == static_cast<std::uint32_t>(index)) return device.uuid;
        found = device.uuid;
        ++count;
    }
    if (index < 0 && count == 1) return found;
    if (index < 0) {
        raise_invalid(
            text("GPU memory whose device was not told, and there are {} GPUs: give DLPack memory, or "
                 "Memory.address(..., device_uuid=...)",
                 count));
    }
    raise_invalid(text("GPU memory of device {}, which no loaded back end offers", index));
}

}  // namespace

std::vector<Layer> to_layers(const py::object& layers) {
    std::vector<Layer> out;
    if (py::isinstance<py::dict>(layers)) {
        for (const auto& [name, array] : py::cast<py::dict>(layers))
            out.push_back(layer_from_array(name.cast<std::string>(), py::reinterpret_borrow<py::object>(array), false, 0));
        return out;
    }
    for (const py::handle layer : layers) {
        if (!py::isinstance<Layer>(layer)) {
            throw py::type_error(text("layers[{}]: expected a Layer, got {}; or give a dict of names and arrays", out.size(),
                                      Py_TYPE(layer.ptr())->tp_name));
        }
        out.push_back(layer.cast<Layer>());
    }
    return out;
}

void resolve_gpus(std::vector<Layer>& layers, const Fabric& fabric) {
    for (Layer& layer : layers) {
        MemoryDescription& memory = layer.memory.description;
        if (memory.kind == PEGA_MEMORY_GPU && memory.device_uuid.empty())
            memory.device_uuid = uuid_of_gpu(fabric, layer.memory.cuda_device);
    }
}

Worker make_worker(std::vector<Layer> layers, const std::string& instance_id, const std::string& name_space,
                   std::uint32_t tp_rank, std::uint32_t tp_size, std::uint32_t pp_rank, std::uint32_t world_size,
                   std::int32_t device_id, bool page_first, const std::string& dtype) {
    Worker out;
    out.registration = {instance_id, name_space, tp_rank, tp_size, pp_rank, world_size, device_id, page_first, dtype, {}};
    for (Layer& layer : layers) {
        layer.registration.memory = layer.memory.description;
        out.registration.layers.push_back(std::move(layer.registration));
        out.memories.push_back(std::move(layer.memory));
    }
    return out;
}

void bind_layer(py::module_& module) {
    py::class_<Memory>(module, "Memory")
        .def_static("of", &memory_of, py::arg("array"))
        .def_static("address", &memory_at, py::arg("address"), py::arg("length"), py::kw_only(), py::arg("kind") = "host",
                    py::arg("device_uuid") = "")
        .def_static("shm", &memory_in_shm, py::arg("name"), py::arg("length"), py::arg("offset") = 0)
        .def_static("ipc", &memory_by_ipc, py::arg("handle"), py::arg("device_uuid"), py::arg("length"), py::arg("offset") = 0)
        .def_property_readonly("kind", [](const Memory& m) { return kind_name(m.description.kind); })
        .def_property_readonly("length", [](const Memory& m) { return m.description.length; });
    py::class_<Layer>(module, "Layer")
        .def(py::init(&make_layer), py::arg("name"), py::arg("memory"), py::arg("num_blocks"), py::arg("bytes_per_block"),
             py::kw_only(), py::arg("kv_stride_bytes") = 0, py::arg("segments") = 1, py::arg("block_stride_bytes") = 0,
             py::arg("storage_group") = 0)
        .def_static("from_array", &layer_from_array, py::arg("name"), py::arg("array"), py::kw_only(),
                    py::arg("kv_first") = false, py::arg("storage_group") = 0)
        .def_property_readonly("name", [](const Layer& l) { return l.registration.name; })
        .def_property_readonly("memory", [](const Layer& l) { return l.memory; })
        .def_property_readonly("num_blocks", [](const Layer& l) { return l.registration.num_blocks; })
        .def_property_readonly("bytes_per_block", [](const Layer& l) { return l.registration.bytes_per_block; })
        .def_property_readonly("kv_stride_bytes", [](const Layer& l) { return l.registration.kv_stride_bytes; })
        .def_property_readonly("segments", [](const Layer& l) { return l.registration.segments; })
        .def_property_readonly("block_stride_bytes", [](const Layer& l) { return l.registration.block_stride_bytes; })
        .def_property_readonly("storage_group", [](const Layer& l) { return l.registration.storage_group; });
}

}  // namespace pegaflow::python

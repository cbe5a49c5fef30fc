// SPDX-License-Identifier: Apache-2.0
#include "server/service_wire.hpp"

#include <fmt/format.h>

#include <cstring>

#include "pegaflow/abi/region.h"
#include "server/pickle.hpp"

namespace pegaflow::server {

namespace wire = ::pegaflow_wire;

namespace {

Result<MemoryDescription> memory_of(const wire::RegisterContextRequest& request, int layer) {
    MemoryDescription out;
    if (request.memory_size() > 0) {
        const wire::MemoryDescription& m = request.memory(layer);
        const bool cuda = m.kind() == wire::MEMORY_KIND_CUDA_IPC;
        if (!cuda && m.kind() != wire::MEMORY_KIND_HOST_SHM)
            return fail(Code::kInvalid, fmt::format("memory kind {} is not known", static_cast<int>(m.kind())));
        out.kind = cuda ? PEGA_MEMORY_GPU : PEGA_MEMORY_HOST;
        out.source = cuda ? PEGA_SOURCE_IPC : PEGA_SOURCE_SHM;
        out.device_uuid = m.device_uuid();
        out.handle = m.handle();
        out.offset = m.offset();
        out.length = m.length();
        return out;
    }
    PEGA_ASSIGN(const CudaWrapper wrapper, read_cuda_wrapper(request.wrapper_bytes(layer)));
    out.kind = PEGA_MEMORY_GPU;
    out.source = PEGA_SOURCE_IPC;
    out.device_uuid = wrapper.device_uuid;
    out.handle = wrapper.ipc_handle;
    out.offset = wrapper.offset;
    out.length = wrapper.storage_bytes;
    return out;
}

}  // namespace

std::vector<std::string_view> views(const google::protobuf::RepeatedPtrField<std::string>& texts) {
    return {texts.begin(), texts.end()};
}

Result<LeaseId> lease_of(const std::string& bytes) {
    if (bytes.empty()) return fail(Code::kInvalid, "query lease id must be non-empty");
    LeaseId lease{};
    if (bytes.size() != lease.size())
        return fail(Code::kInvalid, fmt::format("query lease id must be 16 bytes, got {}", bytes.size()));
    std::memcpy(lease.data(), bytes.data(), lease.size());
    return lease;
}

Result<WorkerRegistration> registration_of(const wire::RegisterContextRequest& request) {
    const int layers = request.layer_names_size();
    const bool plain = request.memory_size() > 0;
    if (request.device_id() < 0)
        return fail(Code::kInvalid, fmt::format("device_id must be >= 0, got {}", request.device_id()));
    if (request.tp_size() == 0) return fail(Code::kInvalid, "tp_size must be > 0");
    if (request.world_size() == 0) return fail(Code::kInvalid, "world_size must be > 0");
    if (request.tp_rank() >= request.tp_size())
        return fail(Code::kInvalid, fmt::format("tp_rank {} must be < tp_size {}", request.tp_rank(), request.tp_size()));
    const int memories = plain ? request.memory_size() : request.wrapper_bytes_size();
    const bool optional_fit = (request.layer_group_ids_size() == 0 || request.layer_group_ids_size() == layers) &&
                              (request.block_stride_bytes_size() == 0 || request.block_stride_bytes_size() == layers);
    if (layers == 0 || memories != layers || request.num_blocks_size() != layers || request.bytes_per_block_size() != layers ||
        request.kv_stride_bytes_size() != layers || request.segments_size() != layers || !optional_fit) {
        return fail(Code::kInvalid,
                    fmt::format("all layer arrays must have the same non-zero length (got layer_names={})", layers));
    }
    WorkerRegistration out{
        request.instance_id(), request.namespace_(), request.tp_rank(),    request.tp_size(), request.pp_rank(),
        request.world_size(),  request.device_id(),  request.page_first(), request.dtype(),   {}};
    for (int i = 0; i < layers; ++i) {
        LayerRegistration layer;
        layer.name = request.layer_names(i);
        PEGA_ASSIGN(layer.memory, memory_of(request, i));
        layer.num_blocks = request.num_blocks(i);
        layer.bytes_per_block = request.bytes_per_block(i);
        layer.kv_stride_bytes = request.kv_stride_bytes(i);
        layer.segments = request.segments(i);
        layer.block_stride_bytes = request.block_stride_bytes_size() > 0 ? request.block_stride_bytes(i) : 0;
        layer.storage_group = request.layer_group_ids_size() > 0 ? request.layer_group_ids(i) : 0;
        out.layers.push_back(std::move(layer));
    }
    return out;
}

}  // namespace pegaflow::server

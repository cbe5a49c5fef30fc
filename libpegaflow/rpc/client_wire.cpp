// SPDX-License-Identifier: Apache-2.0
#include "rpc/client_wire.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "pegaflow/abi/region.h"

namespace pegaflow::rpc {
namespace {

Result<void> describe(const LayerRegistration& layer, wire::MemoryDescription& out) {
    const MemoryDescription& memory = layer.memory;
    if (memory.source != PEGA_SOURCE_IPC && memory.source != PEGA_SOURCE_SHM) {
        return fail(Code::kInvalid, fmt::format("layer \"{}\": the server can open shared memory or a device's inter-process "
                                                "handle, not an address of this process",
                                                layer.name));
    }
    out.set_kind(memory.source == PEGA_SOURCE_IPC ? wire::MEMORY_KIND_CUDA_IPC : wire::MEMORY_KIND_HOST_SHM);
    out.set_device_uuid(memory.device_uuid);
    out.set_handle(memory.handle);
    out.set_offset(memory.offset);
    out.set_length(memory.length);
    return {};
}

void describe_shape(const LayerRegistration& layer, wire::RegisterContextRequest& out) {
    out.add_layer_names(layer.name);
    out.add_num_blocks(layer.num_blocks);
    out.add_bytes_per_block(layer.bytes_per_block);
    out.add_kv_stride_bytes(layer.kv_stride_bytes);
    out.add_segments(layer.segments);
    out.add_layer_group_ids(layer.storage_group);
    out.add_block_stride_bytes(layer.block_stride_bytes);
}

}  // namespace

Result<wire::RegisterContextRequest> to_wire(const WorkerRegistration& worker, const RegisterOptions& options) {
    const std::vector<std::string>& wrappers = options.wrapper_bytes;
    if (!wrappers.empty() && wrappers.size() != worker.layers.size()) {
        return fail(Code::kInvalid, fmt::format("all layer arrays must have the same non-zero length (got layer_names={}, "
                                                "wrapper_bytes={})",
                                                worker.layers.size(), wrappers.size()));
    }
    wire::RegisterContextRequest out;
    out.set_instance_id(worker.instance_id);
    out.set_namespace_(worker.name_space);
    out.set_tp_rank(worker.tp_rank);
    out.set_tp_size(worker.tp_size);
    out.set_world_size(worker.world_size);
    out.set_device_id(worker.device_id);
    out.set_pp_rank(worker.pp_rank);
    out.set_client_version(PEGAFLOW_VERSION);
    out.set_page_first(worker.page_first);
    out.set_dtype(worker.dtype);
    out.set_transfer_mode(options.transfer_mode == TransferMode::kKernel ? wire::TRANSFER_MODE_KERNEL
                                                                         : wire::TRANSFER_MODE_DIRECT);
    for (const LayerRegistration& layer : worker.layers) {
        describe_shape(layer, out);
        if (wrappers.empty()) PEGA_TRY(describe(layer, *out.add_memory()));
    }
    for (const std::string& wrapper : wrappers) out.add_wrapper_bytes(wrapper);
    return out;
}

wire::SaveRequest to_wire(const SaveRequest& request) {
    wire::SaveRequest out;
    out.set_instance_id(std::string(request.instance_id));
    out.set_tp_rank(request.tp_rank);
    out.set_pp_rank(request.pp_rank);
    out.set_device_id(request.device_id);
    out.set_wait_event(std::string(request.wait_event));
    for (const SaveLayer& layer : request.layers) {
        wire::SaveLayer& save = *out.add_saves();
        save.set_layer_name(std::string(layer.layer));
        save.mutable_block_ids()->Add(layer.block_ids.begin(), layer.block_ids.end());
        for (const std::string_view hash : layer.hashes) save.add_block_hashes(hash.data(), hash.size());
    }
    return out;
}

void to_wire(const QueryRequest& request, wire::QueryRequest& out) {
    out.Clear();
    out.set_instance_id(std::string(request.instance_id));
    out.set_req_id(std::string(request.request_id));
    out.set_wait_for_full_prefix(request.whole_prefix_only);
    out.set_group_id(request.group);
    if (request.lease_time) out.set_lease_ms(static_cast<std::uint64_t>(request.lease_time->count() / 1'000'000));
    for (const std::string_view hash : request.hashes) out.add_block_hashes(hash.data(), hash.size());
}

wire::LoadRequest to_wire(const LoadRequest& request, std::string_view load_state_shm) {
    wire::LoadRequest out;
    out.set_instance_id(std::string(request.instance_id));
    out.set_tp_rank(request.tp_rank);
    out.set_device_id(request.device_id);
    out.set_load_state_shm(std::string(load_state_shm));
    out.set_wait_event(std::string(request.wait_event));
    if (request.deadline != std::chrono::steady_clock::time_point::max()) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(request.deadline - std::chrono::steady_clock::now());
        out.set_timeout_ms(static_cast<std::uint64_t>(std::max<std::int64_t>(1, left.count())));
    }
    for (const auto& names : request.layer_groups) {
        wire::LoadGroup& group = *out.add_groups();
        for (const std::string_view name : names) group.add_layer_names(name.data(), name.size());
    }
    for (const LeaseLoad& load : request.loads) {
        wire::LeaseLoad& lease = *out.add_loads();
        lease.set_lease(load.lease.data(), load.lease.size());
        for (const auto& ids : load.block_ids_by_group) {
            wire::LoadBlockIds& targets = *lease.add_block_ids_by_group();
            for (const std::uint32_t id : ids) {
                wire::LoadBlockTarget& target = *targets.add_targets();
                if (id != kNoBlock) target.set_block_id(id);
            }
        }
    }
    return out;
}

Result<QueryOutcome> from_wire(const wire::QueryResponse& response) {
    QueryOutcome out;
    out.loading = response.has_loading();
    const wire::QueryReady& ready = response.ready();
    out.hit_blocks = ready.num_hit_blocks();
    out.hit_positions.assign(ready.hit_positions().begin(), ready.hit_positions().end());
    if (ready.lease().empty()) return out;
    LeaseId lease{};
    if (ready.lease().size() != lease.size())
        return fail(Code::kCorrupt, fmt::format("QueryPrefetch: a lease of {} bytes, expected 16", ready.lease().size()));
    std::memcpy(lease.data(), ready.lease().data(), lease.size());
    out.lease = lease;
    return out;
}

}  // namespace pegaflow::rpc

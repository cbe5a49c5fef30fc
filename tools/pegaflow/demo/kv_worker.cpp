// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/demo/kv_worker.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "pegaflow/bytes.hpp"

namespace pegaflow::cli {
namespace {

std::uint64_t word(std::uint64_t seed, std::uint64_t place) { return (place + seed) * 0x9e3779b97f4a7c15ULL ^ (place >> 7); }

}  // namespace

// KV memory on a GPU, which this process reaches through the same back end as the server.
struct KvWorker::Gpu {
    std::unique_ptr<Fabric> fabric;
    Device* device = nullptr;
    Region memory, staging;
    Channel channel;

    static Result<std::unique_ptr<Gpu>> create(const std::string& name, std::uint64_t bytes) {
        auto gpu = std::make_unique<Gpu>();
        PEGA_ASSIGN(gpu->fabric, Fabric::open());
        PEGA_ASSIGN(gpu->device, gpu->fabric->device(name));
        PEGA_ASSIGN(gpu->memory, gpu->device->allocate(PEGA_MEMORY_GPU, bytes, PEGA_REGION_SHARED));
        PEGA_ASSIGN(gpu->staging, gpu->device->allocate(PEGA_MEMORY_HOST, bytes));
        PEGA_ASSIGN(gpu->channel, gpu->device->open_channel());
        return gpu;
    }
    Result<void> copy(bool to_gpu) {
        Transfer transfer;
        transfer.flat(memory, staging).range(0, 0, memory.length());
        if (to_gpu) transfer.read();
        PEGA_ASSIGN(const Completion done, channel.submit_wait(transfer));
        PEGA_TRY(done.wait());
        return {};
    }
};

KvWorker::KvWorker(const DemoModel& model, std::uint32_t number, std::uint32_t blocks)
    : model_(model), number_(number), blocks_(blocks), bytes_(blocks * model.block_bytes()) {
    for (std::uint32_t i = 0; i < model.layers + model.state_layers; ++i)
        names_.push_back(fmt::format("model.layers.{}.{}", i, i < model.layers ? "self_attn.attn" : "mixer.state"));
}

KvWorker::~KvWorker() {
    if (gpu_ || data_ == nullptr) return;
    ::munmap(data_, bytes_);
    ::shm_unlink(("/" + shm_name_).c_str());
}

Result<std::unique_ptr<KvWorker>> KvWorker::create(const DemoModel& model, std::uint32_t number, std::uint32_t blocks,
                                                   const std::string& device) {
    std::unique_ptr<KvWorker> worker(new KvWorker(model, number, blocks));
    if (device.empty()) {
        PEGA_TRY(worker->map_shared_memory());
        return worker;
    }
    PEGA_ASSIGN(worker->gpu_, Gpu::create(device, worker->bytes_));
    worker->data_ = static_cast<std::uint8_t*>(worker->gpu_->staging.address());
    return worker;
}

Result<void> KvWorker::map_shared_memory() {
    shm_name_ = fmt::format("pegaflow_demo_{}_{}", ::getpid(), number_);
    const int fd = ::shm_open(("/" + shm_name_).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return fail(Code::kNoMemory, fmt::format("cannot create the shared memory object {}", shm_name_), errno);
    void* mapped = ::ftruncate(fd, static_cast<off_t>(bytes_)) == 0
                       ? ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0)
                       : MAP_FAILED;
    ::close(fd);
    if (mapped == MAP_FAILED) {
        const int code = errno;
        ::shm_unlink(("/" + shm_name_).c_str());
        return fail(Code::kNoMemory, fmt::format("cannot map {} of shared memory", format_size(bytes_)), code);
    }
    data_ = static_cast<std::uint8_t*>(mapped);
    return {};
}

// Layer first: a tensor a layer, K of all blocks before V of all blocks. Page first: a page a block, its layers side by side.
KvWorker::Place KvWorker::place(std::uint32_t layer) const noexcept {
    const bool state = layer >= model_.layers;
    const std::uint64_t segment = state ? model_.state_bytes : model_.segment_bytes;
    const std::uint32_t segments = state ? 1 : model_.segments;
    const std::uint64_t attention = model_.segments * model_.segment_bytes;
    const std::uint64_t before = state ? model_.layers * attention + (layer - model_.layers) * segment : layer * attention;
    if (model_.page_first) return {before, model_.block_bytes(), segments == 1 ? 0 : segment, segment, segments};
    return {before * blocks_, segment, segments == 1 ? 0 : blocks_ * segment, segment, segments};
}

Result<WorkerRegistration> KvWorker::registration(const std::string& instance) const {
    WorkerRegistration worker;
    worker.instance_id = instance;
    worker.name_space = "demo-" + model_.name;
    worker.tp_rank = tp_rank();
    worker.tp_size = model_.tp;
    worker.world_size = model_.workers();
    worker.device_id = device_id();
    worker.page_first = model_.page_first;
    worker.dtype = "bfloat16";
    for (std::uint32_t i = 0; i < names_.size(); ++i) {
        const Place p = place(i);
        LayerRegistration layer;
        layer.name = names_[i];
        layer.memory = {PEGA_MEMORY_HOST, PEGA_SOURCE_SHM, "", shm_name_, nullptr, 0, 0};
        if (gpu_) {
            layer.memory.kind = PEGA_MEMORY_GPU;
            layer.memory.source = PEGA_SOURCE_IPC;
            layer.memory.device_uuid = gpu_->device->info().uuid;
            PEGA_ASSIGN(const auto handle, gpu_->memory.export_descriptor());
            layer.memory.handle.assign(reinterpret_cast<const char*>(handle.data()), handle.size());
        }
        layer.memory.offset = p.offset;
        layer.memory.length = (blocks_ - 1) * p.stride + (p.segments - 1) * p.segment_stride + p.bytes;
        layer.num_blocks = blocks_;
        layer.bytes_per_block = p.bytes;
        layer.kv_stride_bytes = p.segment_stride;
        layer.segments = p.segments;
        layer.block_stride_bytes = p.stride;
        layer.storage_group = i < model_.layers ? 0 : 1;
        worker.layers.push_back(std::move(layer));
    }
    return worker;
}

std::vector<std::string_view> KvWorker::layer_names(std::uint32_t group) const {
    const auto middle = names_.begin() + model_.layers;
    return group == 0 ? std::vector<std::string_view>(names_.begin(), middle)
                      : std::vector<std::string_view>(middle, names_.end());
}

std::uint64_t KvWorker::shard_seed(std::uint64_t seed) const noexcept { return seed * 1024 + tp_rank(); }

Result<void> KvWorker::fill(std::uint64_t seed) {
    for (std::uint64_t i = 0; i < bytes_ / 8; ++i) {
        const std::uint64_t value = word(shard_seed(seed), i);
        std::memcpy(data_ + i * 8, &value, 8);
    }
    return gpu_ ? gpu_->copy(true) : Result<void>();
}

Result<void> KvWorker::poison() {
    std::memset(data_, 0xEE, bytes_);
    return gpu_ ? gpu_->copy(true) : Result<void>();
}

Result<std::uint64_t> KvWorker::wrong_words(std::uint64_t seed) {
    if (gpu_) PEGA_TRY(gpu_->copy(false));
    std::uint64_t wrong = 0;
    for (std::uint64_t i = 0; i < bytes_ / 8; ++i) {
        std::uint64_t value = 0;
        std::memcpy(&value, data_ + i * 8, 8);
        wrong += value != word(shard_seed(seed), i) ? 1 : 0;
    }
    return wrong;
}

}  // namespace pegaflow::cli

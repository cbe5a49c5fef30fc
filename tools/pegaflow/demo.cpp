// SPDX-License-Identifier: Apache-2.0
// pegaflow demo: a client process that saves a KV cache of the shape of Llama-3.1-8B through a server, wipes its own, loads it
// back, and checks every byte.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstring>
#include <iostream>
#include <memory>
#include <thread>

#include "pegaflow/abi/region.h"
#include "pegaflow/bytes.hpp"
#include "pegaflow/client.hpp"
#include "pegaflow/transfer.hpp"
#include "tools/pegaflow/verb.hpp"

namespace pegaflow::cli {
namespace {

constexpr std::uint32_t kLayers = 32;
constexpr std::uint64_t kSegmentBytes = 16 * 8 * 128 * 2;  // tokens x KV heads x head dimension x bf16
constexpr auto kLoadTimeout = std::chrono::seconds(60);

struct Arguments {
    std::string endpoint = "http://127.0.0.1:50055";
    std::uint32_t blocks = 128;  // of 2 MiB
    std::uint64_t seed = 1;
    std::string device;  // "cuda:0": KV memory on this GPU; "" = shared memory
};

// KV memory on a GPU, which this process reaches through the same back end as the server.
class GpuMemory {
public:
    static Result<std::unique_ptr<GpuMemory>> create(const std::string& name, std::uint64_t bytes) {
        auto gpu = std::unique_ptr<GpuMemory>(new GpuMemory());
        PEGA_ASSIGN(gpu->fabric_, Fabric::open());
        PEGA_ASSIGN(gpu->device_, gpu->fabric_->device(name));
        PEGA_ASSIGN(gpu->memory_, gpu->device_->allocate(PEGA_MEMORY_GPU, bytes, PEGA_REGION_SHARED));
        PEGA_ASSIGN(gpu->staging_, gpu->device_->allocate(PEGA_MEMORY_HOST, bytes));
        PEGA_ASSIGN(gpu->channel_, gpu->device_->open_channel());
        return gpu;
    }
    Result<void> copy(bool to_gpu) {
        Transfer transfer;
        transfer.flat(memory_, staging_).range(0, 0, memory_.length());
        if (to_gpu) transfer.read();
        PEGA_ASSIGN(const Completion done, channel_.submit_wait(transfer));
        PEGA_TRY(done.wait());
        return {};
    }
    const std::string& uuid() const { return device_->info().uuid; }
    std::uint8_t* staging() const { return static_cast<std::uint8_t*>(staging_.address()); }
    Result<std::string> handle() const {
        PEGA_ASSIGN(const auto bytes, memory_.export_descriptor());
        return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    }

private:
    std::unique_ptr<Fabric> fabric_;
    Device* device_ = nullptr;
    Region memory_, staging_;
    Channel channel_;
};

// KV memory of one worker in a shared memory object: what a GPU's memory is to a serving engine.
class KvMemory {
public:
    static Result<std::unique_ptr<KvMemory>> create(std::uint32_t blocks, const std::string& device) {
        auto memory = std::unique_ptr<KvMemory>(new KvMemory());
        memory->name_ = fmt::format("pegaflow_demo_{}", ::getpid());
        memory->layer_bytes_ = 2 * blocks * kSegmentBytes;
        memory->bytes_ = memory->layer_bytes_ * kLayers;
        if (!device.empty()) {
            PEGA_ASSIGN(memory->gpu_, GpuMemory::create(device, memory->bytes_));
            memory->data_ = memory->gpu_->staging();
            return memory;
        }
        const int fd = ::shm_open(("/" + memory->name_).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0)
            return fail(Code::kNoMemory, fmt::format("cannot create the shared memory object {}", memory->name_), errno);
        void* mapped = ::ftruncate(fd, static_cast<off_t>(memory->bytes_)) == 0
                           ? ::mmap(nullptr, memory->bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0)
                           : MAP_FAILED;
        ::close(fd);
        if (mapped == MAP_FAILED)
            return fail(Code::kNoMemory, fmt::format("cannot map {} of shared memory", format_size(memory->bytes_)), errno);
        memory->data_ = static_cast<std::uint8_t*>(mapped);
        return memory;
    }
    ~KvMemory() {
        if (gpu_) return;
        if (data_ != nullptr) ::munmap(data_, bytes_);
        ::shm_unlink(("/" + name_).c_str());
    }

    Result<WorkerRegistration> registration(std::uint32_t blocks) const {
        WorkerRegistration worker;
        worker.instance_id = name_;
        worker.name_space = "demo-llama-3.1-8b";
        worker.dtype = "bfloat16";
        for (std::uint32_t i = 0; i < kLayers; ++i) {
            LayerRegistration layer;
            layer.name = fmt::format("model.layers.{}.self_attn.attn", i);
            layer.memory = {PEGA_MEMORY_HOST, PEGA_SOURCE_SHM, "", name_, nullptr, i * layer_bytes_, layer_bytes_};
            if (gpu_) {
                layer.memory.kind = PEGA_MEMORY_GPU;
                layer.memory.source = PEGA_SOURCE_IPC;
                layer.memory.device_uuid = gpu_->uuid();
                PEGA_ASSIGN(layer.memory.handle, gpu_->handle());
            }
            layer.num_blocks = blocks;
            layer.bytes_per_block = kSegmentBytes;
            layer.kv_stride_bytes = blocks * kSegmentBytes;
            layer.segments = 2;
            worker.layers.push_back(std::move(layer));
        }
        return worker;
    }
    // The word that stands at this place of the cache that `seed` names.
    static std::uint64_t word(std::uint64_t seed, std::uint64_t place) {
        return (place + seed) * 0x9e3779b97f4a7c15ULL ^ (place >> 7);
    }
    Result<void> fill(std::uint64_t seed) {
        for (std::uint64_t i = 0; i < bytes_ / 8; ++i) put(i, word(seed, i));
        return gpu_ ? gpu_->copy(true) : Result<void>();
    }
    Result<void> poison() {
        std::memset(data_, 0xEE, bytes_);
        return gpu_ ? gpu_->copy(true) : Result<void>();
    }
    Result<std::uint64_t> wrong_words(std::uint64_t seed) const {
        if (gpu_) PEGA_TRY(gpu_->copy(false));
        std::uint64_t wrong = 0;
        for (std::uint64_t i = 0; i < bytes_ / 8; ++i) wrong += get(i) != word(seed, i) ? 1 : 0;
        return wrong;
    }
    std::uint64_t bytes() const { return bytes_; }
    const std::string& name() const { return name_; }

private:
    void put(std::uint64_t i, std::uint64_t value) { std::memcpy(data_ + i * 8, &value, 8); }
    std::uint64_t get(std::uint64_t i) const {
        std::uint64_t value = 0;
        std::memcpy(&value, data_ + i * 8, 8);
        return value;
    }

    std::string name_;
    std::uint64_t layer_bytes_ = 0, bytes_ = 0;
    std::uint8_t* data_ = nullptr;  // of the shared memory, or of the GPU's staging memory
    std::unique_ptr<GpuMemory> gpu_;
};

double rate(std::uint64_t bytes, std::chrono::steady_clock::time_point start) {
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    return static_cast<double>(bytes) / seconds.count() / 1e9;
}

Result<void> demo(const Arguments& arguments, Context& context) {
    PEGA_ASSIGN(auto client, Client::connect({.endpoint = arguments.endpoint}));
    PEGA_ASSIGN(auto memory, KvMemory::create(arguments.blocks, arguments.device));
    PEGA_ASSIGN(const WorkerRegistration worker, memory->registration(arguments.blocks));
    PEGA_TRY(client->start_session(worker.instance_id, worker.name_space, 1, 1));
    PEGA_TRY(client->register_worker(worker));
    PEGA_TRY(memory->fill(arguments.seed));

    std::vector<std::uint32_t> ids;
    std::vector<std::string> hashes;
    for (std::uint32_t i = 0; i < arguments.blocks; ++i) {
        ids.push_back(i);
        hashes.push_back(fmt::format("{:016x}{:016x}", arguments.seed, i));
    }
    const std::vector<std::string_view> views(hashes.begin(), hashes.end());
    std::vector<SaveLayer> layers;
    std::vector<std::string_view> names;
    for (const LayerRegistration& layer : worker.layers) {
        layers.push_back({layer.name, ids, views});
        names.push_back(layer.name);
    }
    auto start = std::chrono::steady_clock::now();
    SaveRequest save;
    save.instance_id = worker.instance_id;
    save.layers = layers;
    PEGA_ASSIGN(const SaveOutcome saved, client->save(save));
    context.out << fmt::format("saved   {} blocks, {} at {:.2f} GB/s ({} were there already)\n", saved.saved_blocks,
                               format_size(saved.bytes), rate(saved.bytes, start), saved.duplicate_blocks);
    PEGA_TRY(memory->poison());

    PEGA_ASSIGN(const QueryOutcome found,
                client->query({.instance_id = worker.instance_id, .hashes = views, .request_id = "demo"}));
    context.out << fmt::format("query   {} of {} blocks found, hit rate {:.1f} %\n", found.hit_blocks, hashes.size(),
                               100.0 * static_cast<double>(found.hit_blocks) / static_cast<double>(hashes.size()));
    if (found.hit_blocks != hashes.size() || !found.lease) return fail(Code::kInternal, "not all saved blocks were found");
    PEGA_ASSIGN(const LoadState state, LoadState::create());
    const std::span<const std::string_view> groups[] = {names};
    const std::span<const std::uint32_t> targets[] = {ids};
    const LeaseLoad loads[] = {{*found.lease, targets}};
    LoadRequest load;
    load.instance_id = worker.instance_id;
    load.layer_groups = groups;
    load.loads = loads;
    start = std::chrono::steady_clock::now();
    PEGA_TRY(client->load(load, state.shm_name()));
    PEGA_TRY(state.wait(kLoadTimeout));
    context.out << fmt::format("loaded  {} blocks, {} at {:.2f} GB/s\n", found.hit_blocks, format_size(memory->bytes()),
                               rate(memory->bytes(), start));
    PEGA_ASSIGN(const std::uint64_t wrong, memory->wrong_words(arguments.seed));
    if (wrong != 0) {
        context.exit = kVerifyFailed;
        return fail(Code::kCorrupt, fmt::format("{} of {} words are wrong", wrong, memory->bytes() / 8));
    }
    context.out << fmt::format("checked {}: every byte is right\n", format_size(memory->bytes()));
    return client->unregister_instance(worker.instance_id);
}

}  // namespace

void add_demo(CLI::App& app, Context& context) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App& verb = *app.add_subcommand(
        "demo", "Save and load a KV cache of the shape of Llama-3.1-8B through a server, and check every byte");
    verb.add_option("--endpoint", arguments->endpoint, "The server")->capture_default_str();
    verb.add_option("--blocks", arguments->blocks, "Blocks of 2 MiB")->check(CLI::Range(1, 65536))->capture_default_str();
    verb.add_option("--device", arguments->device, "Keep the KV memory on this GPU, such as cuda:0; default: shared memory");
    verb.add_option("--seed", arguments->seed, "Of the cache's contents")->capture_default_str();
    verb.callback([arguments, &context] {
        const auto done = demo(*arguments, context);
        if (!done) context.fail(done.error(), context.exit == kVerifyFailed ? kVerifyFailed : kUsage);
    });
}

}  // namespace pegaflow::cli

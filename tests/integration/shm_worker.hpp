// SPDX-License-Identifier: Apache-2.0
// shm_worker.hpp - a worker whose two layers lie in shared memory, and how it saves and loads through a client.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pegaflow/client.hpp"

namespace pegaflow::testing {

constexpr std::uint32_t kBlocks = 16;
constexpr std::uint64_t kBytes = 4096;
constexpr auto kLimit = std::chrono::seconds(20);

// A worker with two layers in one shared memory object.
class ShmWorker {
public:
    explicit ShmWorker(std::string instance)
        : name_(fmt::format("pegaflow_test_{}_{}", ::getpid(), instance)), instance_(std::move(instance)) {
        const int fd = ::shm_open(("/" + name_).c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
        EXPECT_GE(fd, 0);
        EXPECT_EQ(::ftruncate(fd, 2 * kBlocks * kBytes), 0);
        data_ = static_cast<std::uint8_t*>(::mmap(nullptr, 2 * kBlocks * kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
        ::close(fd);
    }
    ~ShmWorker() {
        ::munmap(data_, 2 * kBlocks * kBytes);
        ::shm_unlink(("/" + name_).c_str());
    }
    WorkerRegistration registration() const {
        WorkerRegistration worker;
        worker.instance_id = instance_;
        worker.name_space = "test";
        for (std::uint64_t i = 0; i < 2; ++i) {
            LayerRegistration layer;
            layer.name = fmt::format("layer.{}", i);
            layer.memory = {PEGA_MEMORY_HOST, PEGA_SOURCE_SHM, "", name_, nullptr, i * kBlocks * kBytes, kBlocks * kBytes};
            layer.num_blocks = kBlocks;
            layer.bytes_per_block = kBytes;
            worker.layers.push_back(layer);
        }
        return worker;
    }
    std::uint8_t& at(std::uint64_t layer, std::uint64_t block, std::uint64_t byte) {
        return data_[(layer * kBlocks + block) * kBytes + byte];
    }

private:
    std::string name_;
    std::string instance_;
    std::uint8_t* data_ = nullptr;
};

inline Result<SaveOutcome> save(Client& client, const std::string& instance, std::vector<std::uint32_t> ids,
                                const std::vector<std::string>& hashes) {
    const std::vector<std::string_view> views(hashes.begin(), hashes.end());
    const SaveLayer layers[] = {{"layer.0", ids, views}, {"layer.1", ids, views}};
    SaveRequest request;
    request.instance_id = instance;
    request.layers = layers;
    return client.save(request);
}

inline Result<void> load(Client& client, const std::string& instance, const LeaseId& lease, std::vector<std::uint32_t> ids) {
    PEGA_ASSIGN(const LoadState state, LoadState::create());
    const std::string_view names[] = {"layer.0", "layer.1"};
    const std::span<const std::string_view> groups[] = {names};
    const std::span<const std::uint32_t> targets[] = {ids};
    const LeaseLoad loads[] = {{lease, targets}};
    LoadRequest request;
    request.instance_id = instance;
    request.layer_groups = groups;
    request.loads = loads;
    PEGA_TRY(client.load(request, state.shm_name()));
    return state.wait(kLimit);
}

}  // namespace pegaflow::testing

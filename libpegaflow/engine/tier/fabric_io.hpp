// SPDX-License-Identifier: Apache-2.0
// fabric_io.hpp - DataIo over whatever back end moves bytes between host memory and files.
#pragma once

#include <chrono>
#include <list>
#include <memory>
#include <mutex>
#include <string>

#include "engine/lane.hpp"
#include "engine/tier/container.hpp"
#include "engine/tier/data_io.hpp"
#include "pegaflow/transfer.hpp"

namespace pegaflow::engine::tier {

// The device of the back end `backend` that moves bytes between host memory and files in units of kBlockBytes. kUnsupported,
// kNotFound.
Result<Device*> find_file_device(Fabric& fabric, const std::string& backend);

class FabricIo final : public DataIo {
public:
    // `container`, `device` and `pool` (registered on the device) are borrowed. A batch that takes longer than `limit` is
    // cancelled.
    static Result<std::unique_ptr<FabricIo>> open(Container& container, Device& device, const Region& pool,
                                                  std::uint64_t staging_bytes, std::chrono::nanoseconds limit);
    ~FabricIo() override;

    void submit(Op op, Memory memory, std::span<const Piece> pieces, Ended ended) override;
    std::span<std::byte> staging() override { return {staging_.get(), staging_bytes_}; }
    Result<void> sync() override { return container_.sync(); }
    Result<void> reserve(std::uint64_t offset, std::uint64_t length) override { return container_.reserve(offset, length); }
    Result<void> discard(std::uint64_t offset, std::uint64_t length) override { return container_.discard(offset, length); }
    // Cancels what took too long; everything when `all`. [any]
    void expire(std::chrono::steady_clock::time_point now, bool all = false);

private:
    struct Batch {
        Transfer transfer;
        Ended ended;
        Lane* lane = nullptr;
        std::chrono::steady_clock::time_point deadline;
        bool told = false;  // guarded by mutex_
    };
    struct FreeAligned {
        void operator()(std::byte* memory) const;
    };

    FabricIo(Container& container, const Region& pool, std::chrono::nanoseconds limit)
        : container_(container), pool_(pool), limit_(limit) {}

    Container& container_;
    const Region& pool_;
    const std::chrono::nanoseconds limit_;
    std::unique_ptr<std::byte, FreeAligned> staging_;
    std::uint64_t staging_bytes_ = 0;
    Region staging_region_, file_;
    std::unique_ptr<Lane> reads_, writes_;
    std::mutex mutex_;
    std::list<std::shared_ptr<Batch>> batches_;  // guarded by mutex_; shared with whoever cancels
};

}  // namespace pegaflow::engine::tier

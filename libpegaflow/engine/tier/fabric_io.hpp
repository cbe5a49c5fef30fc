// SPDX-License-Identifier: Apache-2.0
// fabric_io.hpp - DataIo over whatever back end moves bytes between host memory and files.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/lane.hpp"
#include "engine/pool/pool_regions.hpp"
#include "engine/tier/container.hpp"
#include "engine/tier/data_io.hpp"
#include "pegaflow/transfer.hpp"

namespace pegaflow::engine::tier {

// The device of the back end `backend` that moves bytes between host memory and files in units of kBlockBytes. kUnsupported,
// kNotFound.
Result<Device*> find_file_device(Fabric& fabric, const std::string& backend);

class FabricIo final : public DataIo {
public:
    // The pool, and how the device reaches it.
    struct PoolAccess {
        const Pool& pool;
        DeviceSlices& slices;
    };
    // `container`, `device` and what `pool` names are borrowed. A transfer that takes longer than `limit` is cancelled.
    static Result<std::unique_ptr<FabricIo>> open(Container& container, Device& device, PoolAccess pool,
                                                  std::uint64_t staging_bytes, std::chrono::nanoseconds limit);
    ~FabricIo() override;

    void submit(Op op, Memory memory, std::span<const Piece> pieces, Ended ended) override;
    bool reading() const override;
    std::span<std::byte> staging() override { return {staging_.get(), staging_bytes_}; }
    // By the back end when it can, beside the transfers that are under way; else by a call that blocks.
    void flush(Ended ended) override;
    Result<void> reserve(std::uint64_t offset, std::uint64_t length) override;
    Result<void> discard(std::uint64_t offset, std::uint64_t length) override;
    // Cancels what took too long; everything when `all`. Returns how much is late and has not ended all the same: a device
    // may keep what the kernel has given it, and the memory with it. [any]
    std::size_t expire(std::chrono::steady_clock::time_point now, bool all = false);
    // Asks for all reads to end early. [any]
    void cancel_reads();
    // Nothing is under way. [any]
    bool idle();

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

    // Counts the transfers of one call down; the last one ends it.
    struct Call {
        std::mutex mutex;
        std::size_t left = 0;  // guarded by mutex
        Result<void> result;   // the first failure; guarded by mutex
        Ended ended;
    };
    // Pieces whose memory lies in one region, which begins at `first` of the pool or of the staging memory.
    struct Part {
        const Region* region = nullptr;
        std::uint64_t first = 0;
        std::vector<Piece> pieces;
    };

    FabricIo(Container& container, PoolAccess pool, std::chrono::nanoseconds limit)
        : container_(container), pool_(pool), limit_(limit) {}
    bool in_one_slice(std::span<const Piece> pieces) const;
    Result<std::vector<Part>> divide(std::span<const Piece> pieces);
    void start(Op op, const Region& region, std::uint64_t first, std::span<const Piece> pieces, Ended ended);
    std::shared_ptr<Batch> new_batch(Lane& lane, Ended ended);
    void launch(std::shared_ptr<Batch> batch);
    void recycle(std::shared_ptr<Batch> batch);
    void cancel_if(const std::function<bool(const Batch&)>& wanted);
    Result<void> block(const std::function<Result<void>()>& call);

    Container& container_;
    const PoolAccess pool_;
    const std::chrono::nanoseconds limit_;
    std::unique_ptr<std::byte, FreeAligned> staging_;
    std::uint64_t staging_bytes_ = 0;
    Region staging_region_, file_;
    bool flushes_ = false;  // the back end does
    std::unique_ptr<Lane> reads_, writes_;
    std::atomic<std::chrono::steady_clock::time_point> last_read_{std::chrono::steady_clock::time_point::min()};
    std::mutex mutex_;
    std::list<std::shared_ptr<Batch>> batches_;               // guarded by mutex_; shared with whoever cancels
    std::deque<std::shared_ptr<Batch>> spare_;                // over, their memory kept for the next ones; guarded by mutex_
    std::list<std::chrono::steady_clock::time_point> calls_;  // of the kernel that block: their limits; guarded by mutex_
};

}  // namespace pegaflow::engine::tier

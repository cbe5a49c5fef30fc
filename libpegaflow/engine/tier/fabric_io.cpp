// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/fabric_io.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "pegaflow/abi/ext/durable.h"

namespace pegaflow::engine::tier {
namespace {

constexpr std::uint32_t kMaxBatches = 1 << 20;  // whoever submits keeps far below
constexpr std::size_t kSpareBatches = 64;
constexpr auto kMoment = std::chrono::milliseconds(50);

}  // namespace

Result<Device*> find_file_device(Fabric& fabric, const std::string& backend) {
    std::string why = fmt::format("the back end \"{}\" is not loaded; `pegaflow plugins` says what was found", backend);
    for (const DeviceInfo& info : fabric.devices()) {
        if (info.backend != backend) continue;
        PEGA_ASSIGN(Device* const device, fabric.device(info.name));
        const pega_capabilities& can = device->capabilities();
        const bool files =
            (can.matrix[PEGA_MEMORY_HOST] & (1U << PEGA_MEMORY_FILE)) != 0 && (can.source_mask & (1U << PEGA_SOURCE_PATH)) != 0;
        if (files && (can.alignment == 0 || kBlockBytes % can.alignment == 0)) return device;
        why = files ? fmt::format("{} needs an alignment of {} bytes, the tier has {}", info.name, can.alignment, kBlockBytes)
                    : fmt::format("{} does not move bytes between host memory and files", info.name);
    }
    return fail(Code::kUnsupported, std::move(why));
}

void FabricIo::FreeAligned::operator()(std::byte* memory) const { std::free(memory); }

Result<std::unique_ptr<FabricIo>> FabricIo::open(Container& container, Device& device, PoolAccess pool,
                                                 std::uint64_t staging_bytes, std::chrono::nanoseconds limit) {
    std::unique_ptr<FabricIo> io(new FabricIo(container, pool, limit));
    io->staging_bytes_ = round_up(staging_bytes);
    io->staging_.reset(static_cast<std::byte*>(std::aligned_alloc(kBlockBytes, io->staging_bytes_)));
    if (!io->staging_) return fail(Code::kNoMemory, fmt::format("no memory for {} bytes of staging", io->staging_bytes_));
    PEGA_ASSIGN(io->staging_region_, device.register_address(io->staging_.get(), io->staging_bytes_));
    pega_memory file{};
    file.size = sizeof file;
    file.kind = PEGA_MEMORY_FILE;
    file.source = PEGA_SOURCE_PATH;
    file.handle = container.path().data();
    file.handle_length = container.path().size();
    file.length = container.superblock().total_bytes();
    PEGA_ASSIGN(io->file_, device.register_memory(file));
    io->flushes_ = device.extension(PEGA_EXT_DURABLE) != nullptr;
    PEGA_ASSIGN(Channel reads, device.open_channel());
    PEGA_ASSIGN(Channel writes, device.open_channel());
    io->reads_ = std::make_unique<Lane>(std::move(reads), kMaxBatches);
    io->writes_ = std::make_unique<Lane>(std::move(writes), kMaxBatches);
    return io;
}

FabricIo::~FabricIo() {
    if (reads_) reads_->close();
    if (writes_) writes_->close();
}

// The pool's memory is registered slice by slice: a transfer has one slice.
bool FabricIo::in_one_slice(std::span<const Piece> pieces) const {
    const Pool::Slice& slice = pool_.pool.slice(pool_.pool.slice_of(pieces.front().memory_offset));
    return std::all_of(pieces.begin(), pieces.end(), [&](const Piece& piece) {
        return piece.memory_offset >= slice.offset && piece.memory_offset + piece.length <= slice.offset + slice.length;
    });
}

Result<std::vector<FabricIo::Part>> FabricIo::divide(std::span<const Piece> pieces) {
    std::vector<Part> out;
    for (Piece piece : pieces) {
        while (piece.length != 0) {
            const std::size_t number = pool_.pool.slice_of(piece.memory_offset);
            const Pool::Slice& slice = pool_.pool.slice(number);
            PEGA_ASSIGN(const Region* const region, pool_.slices.get(number));
            auto part = std::find_if(out.begin(), out.end(), [region](const Part& p) { return p.region == region; });
            if (part == out.end()) part = out.insert(out.end(), {region, slice.offset, {}});
            const std::uint64_t length = std::min(piece.length, slice.offset + slice.length - piece.memory_offset);
            part->pieces.push_back({piece.memory_offset, piece.file_offset, length});
            piece = {piece.memory_offset + length, piece.file_offset + length, piece.length - length};
        }
    }
    return out;
}

void FabricIo::submit(Op op, Memory memory, std::span<const Piece> pieces, Ended ended) {
    if (memory == Memory::kStaging) return start(op, staging_region_, 0, pieces, std::move(ended));
    if (in_one_slice(pieces)) {
        const std::size_t number = pool_.pool.slice_of(pieces.front().memory_offset);
        const auto region = pool_.slices.get(number);
        if (!region) return ended(fail(region.error()));
        return start(op, **region, pool_.pool.slice(number).offset, pieces, std::move(ended));
    }
    auto parts = divide(pieces);
    if (!parts) return ended(fail(std::move(parts).error()));
    auto call = std::make_shared<Call>();  // shared by the transfers
    call->left = parts->size();
    call->ended = std::move(ended);
    for (const Part& part : *parts) {
        start(op, *part.region, part.first, part.pieces, [call](Result<void> result) {
            {
                const std::lock_guard lock(call->mutex);
                if (!result && call->result) call->result = std::move(result);
                if (--call->left != 0) return;
            }
            call->ended(std::move(call->result));
        });
    }
}

void FabricIo::start(Op op, const Region& region, std::uint64_t first, std::span<const Piece> pieces, Ended ended) {
    auto batch = new_batch(op == Op::kRead ? *reads_ : *writes_, std::move(ended));
    batch->transfer.flat(region, file_).priority(op == Op::kRead ? 2 : 0);
    if (op == Op::kRead) batch->transfer.read();
    for (const Piece& piece : pieces) batch->transfer.range(piece.memory_offset - first, piece.file_offset, piece.length);
    launch(std::move(batch));
}

bool FabricIo::reading() const {
    return std::chrono::steady_clock::now() - kMoment < last_read_.load(std::memory_order_relaxed);
}

void FabricIo::flush(Ended ended) {
    if (!flushes_) return ended(block([this] { return container_.sync(); }));
    auto batch = new_batch(*writes_, std::move(ended));
    batch->transfer.flat(staging_region_, file_).durable();
    launch(std::move(batch));
}

std::shared_ptr<FabricIo::Batch> FabricIo::new_batch(Lane& lane, Ended ended) {
    std::shared_ptr<Batch> batch;
    {
        const std::lock_guard lock(mutex_);
        if (spare_.size() >= kSpareBatches / 2) {
            batch = std::move(spare_.front());
            spare_.pop_front();
        }
    }
    if (!batch) batch = std::make_shared<Batch>();
    batch->transfer.clear();  // waits for its last callback to return; the oldest spare one has long done so
    batch->ended = std::move(ended);
    batch->lane = &lane;
    batch->told = false;
    return batch;
}

void FabricIo::recycle(std::shared_ptr<Batch> batch) {
    const std::lock_guard lock(mutex_);
    // Whoever is about to cancel it must not meet its next use.
    if (batch.use_count() == 1 && spare_.size() < kSpareBatches) spare_.push_back(std::move(batch));
}

void FabricIo::launch(std::shared_ptr<Batch> batch) {
    const auto now = std::chrono::steady_clock::now();
    batch->deadline = now + limit_;
    Lane& lane = *batch->lane;
    if (&lane == reads_.get()) last_read_.store(now, std::memory_order_relaxed);
    Transfer& transfer = batch->transfer;
    std::list<std::shared_ptr<Batch>>::iterator place;
    {
        const std::lock_guard lock(mutex_);
        place = batches_.insert(batches_.end(), std::move(batch));
    }
    const auto finish = [this, place](Result<void> result) {
        std::shared_ptr<Batch> over;
        {
            const std::lock_guard lock(mutex_);
            over = std::move(*place);
            batches_.erase(place);
        }
        const Ended tell = std::move(over->ended);
        recycle(std::move(over));
        tell(std::move(result));
    };
    auto started = lane.reserve(1);
    if (started) {
        started = lane.submit(transfer, [finish](pega_status status, std::uint64_t) {
            if (status == PEGA_OK) return finish({});
            finish(
                fail(static_cast<Code>(status), fmt::format("the device answered {}", to_string(static_cast<Code>(status)))));
        });
        if (!started) lane.unreserve(1);
    }
    if (!started) finish(std::move(started));
}

Result<void> FabricIo::reserve(std::uint64_t offset, std::uint64_t length) {
    return block([&] { return container_.reserve(offset, length); });
}

Result<void> FabricIo::discard(std::uint64_t offset, std::uint64_t length) {
    return block([&] { return container_.discard(offset, length); });
}

Result<void> FabricIo::block(const std::function<Result<void>()>& call) {
    std::list<std::chrono::steady_clock::time_point> mine{std::chrono::steady_clock::now() + limit_};
    const auto place = mine.begin();
    {
        const std::lock_guard lock(mutex_);
        calls_.splice(calls_.end(), mine);
    }
    auto result = call();
    const std::lock_guard lock(mutex_);
    calls_.erase(place);
    return result;
}

bool FabricIo::idle() {
    const std::lock_guard lock(mutex_);
    return batches_.empty() && calls_.empty();
}

// Each once.
void FabricIo::cancel_if(const std::function<bool(const Batch&)>& wanted) {
    std::vector<std::shared_ptr<Batch>> chosen;
    {
        const std::lock_guard lock(mutex_);
        for (const auto& batch : batches_) {
            if (wanted(*batch) && !std::exchange(batch->told, true)) chosen.push_back(batch);
        }
    }
    for (const auto& batch : chosen) batch->lane->cancel(batch->transfer);
}

void FabricIo::cancel_reads() {
    cancel_if([this](const Batch& batch) { return batch.lane == reads_.get(); });
}

std::size_t FabricIo::expire(std::chrono::steady_clock::time_point now, bool all) {
    cancel_if([&](const Batch& batch) { return all || batch.deadline <= now; });
    const std::lock_guard lock(mutex_);
    const auto transfers = std::count_if(batches_.begin(), batches_.end(), [now](const auto& b) { return b->deadline <= now; });
    const auto calls = std::count_if(calls_.begin(), calls_.end(), [now](auto deadline) { return deadline <= now; });
    return static_cast<std::size_t>(transfers + calls);
}

}  // namespace pegaflow::engine::tier

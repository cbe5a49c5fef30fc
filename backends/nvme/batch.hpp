// SPDX-License-Identifier: Apache-2.0
// batch.hpp - one accepted batch: what of it has become requests, what has landed.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "file.hpp"
#include "pegaflow/abi/ext/durable.h"
#include "pegaflow/backend.hpp"

namespace nvme_backend {

// A place within a batch: the next byte that no request has.
struct Cursor {
    std::uint64_t span = 0;
    std::uint64_t page = 0;    // of the span: index * segments + segment; the element of a flat batch
    std::uint64_t within = 0;  // bytes of that page
};

// The longest piece from a cursor on that is consecutive on both sides.
struct Fragment {
    std::uint64_t span = 0, page = 0;
    const pega_region* host = nullptr;
    std::uint8_t* memory = nullptr;
    File* file = nullptr;
    std::uint64_t offset = 0;  // in the file
    std::uint64_t length = 0;
};

// INVALID or UNSUPPORTED for a batch that this device cannot take. [data]
pega_status check(const pega_device& device, const pega_batch& batch) noexcept;

struct Batch {
    pega_channel* channel = nullptr;
    pega_batch batch{};
    bool durable = false;
    bool writes_file = false;
    bool in_use = false;                        // guarded by the device's mutex
    std::atomic<bool> cancel_requested{false};  // set by anyone, acted on by the poller

    // The poller's.
    Cursor cursor;
    bool fed = false;               // all of it has become requests, or the rest is given up
    bool syncing = false;           // only the flush of its files is left
    std::size_t active_index = 0;   // of the device's list of active batches
    std::uint64_t outstanding = 0;  // requests
    std::uint64_t landed = 0, marked = 0, bytes = 0, first_bad = 0;
    std::vector<std::uint32_t> span_outstanding;
    std::vector<File*> written;  // files that a durable batch has written
    std::int32_t status = PEGA_OK;
    std::int32_t native_code = 0;

    std::uint32_t priority() const noexcept { return batch.priority < 2 ? batch.priority : 2; }
    std::uint64_t span_count() const noexcept { return batch.format == PEGA_FORMAT_FLAT ? 1 : batch.span_count; }
    // Takes the caller's batch, which is sound, and pins its regions; `release_regions` lets go of them. The device's mutex is
    // held for both.
    void accept(pega_channel* owner, const pega_batch& from);
    void release_regions() noexcept;
    // The fragment at the cursor; false at the end. Moves the cursor only past pages of no bytes. [data]
    bool peek(Cursor& at, Fragment* out) const noexcept;
    void advance(Cursor& at, std::uint64_t length) const noexcept;
    // Keeps the first failure.
    void fail(std::int32_t why, std::int32_t native, std::uint64_t bad) noexcept;
    // Accounts for a request that covered spans `first` to `last`. Returns true when a mark is due.
    bool land(std::uint64_t first, std::uint64_t last, std::uint64_t moved, bool good) noexcept;
    void advance_landed() noexcept;

private:
    std::uint64_t pages_of(std::uint64_t span) const noexcept;
};

}  // namespace nvme_backend

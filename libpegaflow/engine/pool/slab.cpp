// SPDX-License-Identifier: Apache-2.0
#include "engine/pool/slab.hpp"

#include <algorithm>
#include <cassert>

namespace pegaflow::engine {

void Slab::add(std::uint64_t offset, std::uint64_t length) {
    const std::lock_guard lock(mutex_);
    total_ += length / kGranule * kGranule;
    release_range(offset, length / kGranule * kGranule);
}

void Slab::release_range(std::uint64_t offset, std::uint64_t length) {
    if (length == 0) return;
    auto next = ranges_.lower_bound(offset);
    if (next != ranges_.end() && offset + length == next->first) {
        length += next->second;
        next = ranges_.erase(next);
    }
    if (next != ranges_.begin()) {
        const auto before = std::prev(next);
        if (before->first + before->second == offset) {
            before->second += length;
            return;
        }
    }
    ranges_.emplace(offset, length);
}

Slab::Chunk* Slab::new_chunk(std::uint64_t bytes) {
    const std::uint64_t wanted = std::min(kMaxChunkBytes, total_ / kMinChunks);
    // The fewer free bytes there are, the smaller the chunk: a full pool still gives its last page.
    for (std::uint64_t pages = std::max<std::uint64_t>(1, wanted / bytes); pages != 0; pages /= 2) {
        const std::uint64_t length = pages * bytes;
        auto best = ranges_.end();
        for (auto it = ranges_.begin(); it != ranges_.end(); ++it) {
            if (it->second >= length && (best == ranges_.end() || it->second < best->second)) best = it;
        }
        if (best == ranges_.end()) continue;
        const auto [offset, available] = *best;
        ranges_.erase(best);
        release_range(offset + length, available - length);
        Chunk& chunk = chunks_[offset];
        chunk.offset = offset;
        chunk.page = bytes;
        chunk.pages = pages;
        chunk.free.resize(pages);
        for (std::uint64_t i = 0; i < pages; ++i) chunk.free[i] = static_cast<std::uint32_t>(pages - 1 - i);
        classes_[bytes].partial.insert(offset);
        return &chunk;
    }
    return nullptr;
}

std::uint64_t Slab::allocate_many(std::uint64_t bytes, std::span<std::uint64_t> out) {
    assert(bytes != 0 && bytes % kGranule == 0);
    const std::lock_guard lock(mutex_);
    Class& size_class = classes_[bytes];
    std::uint64_t done = 0;
    while (done < out.size()) {
        Chunk* chunk = size_class.partial.empty() ? new_chunk(bytes) : &chunks_[*size_class.partial.begin()];
        if (chunk == nullptr) break;
        for (; done < out.size() && !chunk->free.empty(); ++done) {
            out[done] = chunk->offset + chunk->free.back() * bytes;
            chunk->free.pop_back();
        }
        if (chunk->free.empty()) size_class.partial.erase(chunk->offset);
    }
    used_ += done * bytes;
    return done;
}

void Slab::free(std::uint64_t offset, std::uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    const auto it = std::prev(chunks_.upper_bound(offset));
    Chunk& chunk = it->second;
    assert(chunk.page == bytes && offset >= chunk.offset && (offset - chunk.offset) % bytes == 0);
    chunk.free.push_back(static_cast<std::uint32_t>((offset - chunk.offset) / bytes));
    used_ -= bytes;
    Class& size_class = classes_[bytes];
    if (chunk.free.size() == 1) size_class.partial.insert(chunk.offset);
    if (chunk.free.size() < chunk.pages) return;
    size_class.partial.erase(chunk.offset);
    release_range(chunk.offset, chunk.pages * chunk.page);
    chunks_.erase(it);
}

std::uint64_t Slab::used() const {
    const std::lock_guard lock(mutex_);
    return used_;
}

std::uint64_t Slab::largest_free() const {
    const std::lock_guard lock(mutex_);
    std::uint64_t largest = 0;
    for (const auto& [offset, length] : ranges_) largest = std::max(largest, length);
    for (const auto& [bytes, size_class] : classes_) {
        if (!size_class.partial.empty()) largest = std::max(largest, bytes);
    }
    return largest;
}

}  // namespace pegaflow::engine

// SPDX-License-Identifier: Apache-2.0
// Memory of blocks: they come and go by the million, on different threads, and a lookup goes to any of them.
#include "engine/block/block.hpp"

#include <mutex>
#include <new>

#include "base/arena.hpp"
#include "base/thread.hpp"

namespace pegaflow::engine {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

void* Block::operator new(std::size_t bytes) { return ::operator new(bytes, std::align_val_t(alignof(Block))); }
void Block::operator delete(void* memory) noexcept { ::operator delete(memory, std::align_val_t(alignof(Block))); }

#else

namespace {

static_assert(alignof(Block) <= base::Arena::kAlignment);

// Blocks that were freed, for the next ones. What it has it keeps: a pool is as full again soon.
class Stock {
public:
    void* take() {
        const std::lock_guard lock(mutex_);
        if (free_ == nullptr) return arena_.allocate(sizeof(Block));
        Link* link = free_;
        free_ = link->next;
        // Another thread's cache may have it, and whoever makes a block often makes more.
        if (free_ != nullptr) Block::prefetch(free_);
        return link;
    }
    void give(void* memory) noexcept {
        auto* link = static_cast<Link*>(memory);
        const std::lock_guard lock(mutex_);
        link->next = free_;
        free_ = link;
    }

private:
    struct Link {
        Link* next;
    };

    base::AdaptiveMutex mutex_;
    base::Arena arena_;     // guarded by mutex_
    Link* free_ = nullptr;  // guarded by mutex_
};

// Never destroyed: blocks may be freed by threads that end after main.
Stock& stock() {
    static Stock& only = *new Stock();
    return only;
}

}  // namespace

void* Block::operator new(std::size_t) { return stock().take(); }
void Block::operator delete(void* memory) noexcept { stock().give(memory); }

#endif

}  // namespace pegaflow::engine

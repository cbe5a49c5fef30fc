// SPDX-License-Identifier: Apache-2.0
// arena.hpp - memory for what is small, comes by the million and is looked up at random.
//
// It lies in huge pages where the system gives them, so that addresses are translated from few entries.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace pegaflow::base {

// Gives memory out and takes all of it back at its end. Used by one thread at a time.
class Arena {
public:
    static constexpr std::size_t kAlignment = 64;

    Arena() = default;
    ~Arena();
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;

    // Aligned to kAlignment, uninitialized; throws std::bad_alloc.
    void* allocate(std::size_t bytes);

private:
    std::vector<std::pair<void*, std::size_t>> parts_;
    std::byte* next_ = nullptr;
    std::size_t left_ = 0;
};

}  // namespace pegaflow::base

// SPDX-License-Identifier: Apache-2.0
// record_queue.hpp - completion records on their way to whoever polls; allocates only when it is longer than ever before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "pegaflow/abi/completion.h"

namespace backend_common {

// Not synchronised: its owner's lock guards it.
class RecordQueue {
public:
    void push(const pega_completion& record);
    // As `poll` of the completion table: elements have the size that the first one says.
    std::uint32_t pop(pega_completion* out, std::uint32_t capacity);
    bool empty() const noexcept { return count_ == 0; }

private:
    std::vector<pega_completion> ring_ = std::vector<pega_completion>(1024);
    std::size_t head_ = 0;
    std::size_t count_ = 0;
};

}  // namespace backend_common

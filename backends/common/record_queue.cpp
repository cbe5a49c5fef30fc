// SPDX-License-Identifier: Apache-2.0
#include "common/record_queue.hpp"

#include <algorithm>

#include "pegaflow/backend.hpp"

namespace backend_common {

void RecordQueue::push(const pega_completion& record) {
    if (count_ == ring_.size()) {
        std::rotate(ring_.begin(), ring_.begin() + static_cast<std::ptrdiff_t>(head_), ring_.end());
        head_ = 0;
        ring_.resize(ring_.size() * 2);
    }
    ring_[(head_ + count_++) % ring_.size()] = record;
}

std::uint32_t RecordQueue::pop(pega_completion* out, std::uint32_t capacity) {
    const std::uint32_t stride = out->size;
    std::uint32_t taken = 0;
    auto* bytes = reinterpret_cast<std::uint8_t*>(out);
    while (taken < capacity && count_ != 0) {
        auto* element = reinterpret_cast<pega_completion*>(bytes + static_cast<std::size_t>(taken) * stride);
        element->size = stride;
        pegaflow::backend::copy_out(element, ring_[head_]);
        head_ = (head_ + 1) % ring_.size();
        --count_;
        ++taken;
    }
    return taken;
}

}  // namespace backend_common

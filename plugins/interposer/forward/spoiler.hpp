// SPDX-License-Identifier: Apache-2.0
// spoiler.hpp - changes one byte of what a batch has written, wherever that lies.
#pragma once

#include <cstdint>

#include "pegaflow/backend.hpp"

namespace interposer {

// Host memory is changed in place, other memory through a channel of the inner device to itself and a little host memory. From
// the thread that polls, but for open and close.
class Spoiler {
public:
    // UNSUPPORTED where the device has memory that cannot be changed so; logged.
    pega_status open(pega_device& device);
    void close(pega_device& device);

    // Changes the first byte of the first page that is not empty; the batch has ended well, its regions are the wrappers'.
    // Waits for the two small copies that this may take. What cannot be changed is logged.
    void spoil(pega_device& device, const pega_batch& batch);

private:
    struct Place;
    static bool find_place(const pega_batch& batch, Place* out);
    bool copy(pega_device& device, const Place& place, bool to_buffer);

    pega_channel* channel_ = nullptr;  // inner
    pega_region* buffer_ = nullptr;    // inner, host memory
    std::uint8_t* bytes_ = nullptr;
    std::uint64_t unit_ = 1;  // what offsets and lengths must be multiples of
};

}  // namespace interposer

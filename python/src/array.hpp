// SPDX-License-Identifier: Apache-2.0
// array.hpp - an array of anyone's, seen through the buffer protocol, DLPack or __cuda_array_interface__: where its bytes are.
//
// Keeps what it looks at alive. Made, copied and destroyed with the interpreter lock held.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "errors.hpp"

namespace pegaflow::python {

struct Array {
    // TypeError when the object speaks none of the three; ValueError on negative strides and on nothing to hold.
    static Array of(const py::object& object);

    // Bytes from `address` to the end of the last element, gaps included.
    std::uint64_t extent() const;
    // Bytes of one element of the first `dimensions` dimensions, when the rest of it has no gaps; else ValueError.
    std::uint64_t packed_bytes(std::size_t dimensions) const;

    std::uintptr_t address = 0;
    std::uint32_t kind = 0;  // PEGA_MEMORY_*
    int cuda_device = -1;    // -1 = host memory, or not told
    bool read_only = false;
    std::uint64_t item_bytes = 1;
    std::vector<std::int64_t> shape;
    std::vector<std::int64_t> strides;  // bytes
    std::string protocol;               // how it was read, for messages
    std::shared_ptr<void> buffer;       // the exported buffer, shared by copies of this view
    py::object owner;
};

}  // namespace pegaflow::python

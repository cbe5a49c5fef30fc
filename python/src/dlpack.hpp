// SPDX-License-Identifier: Apache-2.0
// dlpack.hpp - the two structs of the DLPack protocol that a consumer reads; layout as the protocol's pages describe it.
#pragma once

#include <cstdint>

namespace pegaflow::python::dlpack {

inline constexpr std::int32_t kCpu = 1;
inline constexpr std::int32_t kCuda = 2;
inline constexpr std::int32_t kCudaHost = 3;
inline constexpr std::int32_t kCudaManaged = 13;
inline constexpr std::uint64_t kReadOnly = 1;  // Versioned.flags

struct Tensor {
    void* data;
    std::int32_t device_type;
    std::int32_t device_id;
    std::int32_t ndim;
    std::uint8_t type_code;
    std::uint8_t type_bits;
    std::uint16_t type_lanes;
    std::int64_t* shape;
    std::int64_t* strides;  // in elements; null = row by row without gaps
    std::uint64_t byte_offset;
};

struct Managed {  // the capsule "dltensor"
    Tensor tensor;
    void* context;
    void (*deleter)(Managed*);
};

struct Versioned {  // the capsule "dltensor_versioned"
    std::uint32_t major;
    std::uint32_t minor;
    void* context;
    void (*deleter)(Versioned*);
    std::uint64_t flags;
    Tensor tensor;
};

static_assert(sizeof(Tensor) == 48 && sizeof(Managed) == 64 && sizeof(Versioned) == 80);

}  // namespace pegaflow::python::dlpack

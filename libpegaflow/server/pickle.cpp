// SPDX-License-Identifier: Apache-2.0
#include "server/pickle.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "server/pickle_reader.hpp"

namespace pegaflow::server {
namespace {

constexpr std::size_t kMaxInput = 1 << 20;
constexpr std::size_t kIpcHandleBytes = 64;
constexpr std::size_t kShareFields = 8;
constexpr const char* kWrapper = "pegaflow.ipc_wrapper CudaIPCWrapper";
constexpr const char* kSize = "torch Size";

struct DType {
    std::string_view global;
    std::int64_t bytes;  // of one element
};
// Those that a KV cache can have, by the names under which torch pickles them.
constexpr DType kDTypes[] = {{"torch bfloat16", 2},       {"torch float16", 2},
                             {"torch float32", 4},        {"torch float64", 8},
                             {"torch float8_e4m3fn", 1},  {"torch float8_e4m3fnuz", 1},
                             {"torch float8_e5m2", 1},    {"torch float8_e5m2fnuz", 1},
                             {"torch float8_e8m0fnu", 1}, {"torch float4_e2m1fn_x2", 1},
                             {"torch bool", 1},           {"torch uint8", 1},
                             {"torch uint16", 2},         {"torch uint32", 4},
                             {"torch uint64", 8},         {"torch int8", 1},
                             {"torch int16", 2},          {"torch int32", 4},
                             {"torch int64", 8}};

const DType* find_dtype(std::string_view global) {
    const auto* const it = std::ranges::find(kDTypes, global, &DType::global);
    return it == std::end(kDTypes) ? nullptr : it;
}

bool known_global(std::string_view name) { return name == kWrapper || name == kSize || find_dtype(name) != nullptr; }

unexpected<Error> bad_shape(std::string_view why) {
    return fail(Code::kInvalid, fmt::format("wrapper_bytes is not a usable CudaIPCWrapper: {}", why));
}

// The attributes by name. Old clients leave out the last two.
enum Attribute : std::size_t { kHandle, kDType, kShape, kDeviceUuid, kStride, kStorageOffset, kAttributes };
constexpr std::array<std::string_view, kAttributes> kNames = {"handle",      "dtype",  "shape",
                                                              "device_uuid", "stride", "storage_offset"};
using Attributes = std::array<const Item*, kAttributes>;

Result<Attributes> attributes_of(const Item& root) {
    const auto* object = std::get_if<Made>(&root);
    if (object == nullptr || object->name != kWrapper || object->called || !object->arguments->empty() ||
        !object->state->has_value()) {
        return bad_shape("it is another object");
    }
    Attributes out{};
    for (const auto& [key, value] : *object->state->value().pairs) {
        const auto* name = std::get_if<std::string>(&key);
        if (name == nullptr) return bad_shape("an attribute's name is no text");
        const auto at = static_cast<std::size_t>(std::ranges::find(kNames, *name) - kNames.begin());
        if (at == kAttributes) return bad_shape(fmt::format("it has another attribute, {}", printable(*name)));
        if (out[at] != nullptr) return bad_shape(fmt::format("it has {} twice", kNames[at]));
        out[at] = &value;
    }
    for (const Attribute needed : {kHandle, kDType, kShape, kDeviceUuid}) {
        if (out[needed] == nullptr) return bad_shape(fmt::format("{} is missing", kNames[needed]));
    }
    return out;
}

// The raw handle out of torch's bytes: 64 of them, or a version byte, a type byte and the payload.
Result<std::string> ipc_handle(const std::string& bytes) {
    if (bytes.size() == kIpcHandleBytes) return bytes;
    if (bytes.size() < 2) return bad_shape(fmt::format("a memory handle of {} bytes", bytes.size()));
    const char type = bytes[1];
    if (type == 'e') {
        return bad_shape(
            "the memory is an expandable segment, which cannot be shared by handle; start the client with "
            "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:False");
    }
    const auto version = static_cast<unsigned char>(bytes[0]);
    if (type != 'c' || version == 0 || version > 3 || bytes.size() != 2 + kIpcHandleBytes) {
        return bad_shape(fmt::format("a memory handle of version {} and {} bytes is not known", version, bytes.size()));
    }
    return bytes.substr(2);
}

// What _share_cuda_() returns: device index, memory handle, size and offset of the storage, the name of the file with the
// reference counter and its offset there, an event handle, and whether the event is to be waited for.
Result<void> read_handle(const Item& item, CudaWrapper& out) {
    const auto* tuple = std::get_if<Tuple>(&item);
    if (tuple == nullptr) return bad_shape("handle is no tuple");
    const Items& fields = *tuple->items;
    if (fields.size() != kShareFields)
        return bad_shape(fmt::format("handle has {} fields, expected {}", fields.size(), kShareFields));
    const auto number = [&](std::size_t at) { return std::get_if<std::int64_t>(&fields[at]); };
    const auto bytes = [&](std::size_t at) { return std::get_if<Bytes>(&fields[at]); };
    const auto natural = [&](std::size_t at) { return number(at) != nullptr && *number(at) >= 0; };
    if (!natural(0)) return bad_shape("handle field 0 is no device index");
    if (bytes(1) == nullptr) return bad_shape("handle field 1, the memory handle, is no bytes");
    if (!natural(2) || *number(2) == 0) return bad_shape("handle field 2 is no size of a storage");
    std::int64_t end = 0;
    if (!natural(3) || __builtin_add_overflow(*number(2), *number(3), &end))
        return bad_shape("handle field 3 is no offset of a storage");
    if (bytes(4) == nullptr) return bad_shape("handle field 4, the name of the reference counter, is no bytes");
    if (!natural(5)) return bad_shape("handle field 5 is no offset of a reference counter");
    if (bytes(6) == nullptr || bytes(6)->data.size() != kIpcHandleBytes)
        return bad_shape(fmt::format("handle field 6, the event handle, is not {} bytes", kIpcHandleBytes));
    if (!std::holds_alternative<bool>(fields[7])) return bad_shape("handle field 7 is not true or false");
    PEGA_ASSIGN(out.ipc_handle, ipc_handle(bytes(1)->data));
    out.storage_bytes = static_cast<std::uint64_t>(*number(2));
    out.offset = static_cast<std::uint64_t>(*number(3));
    return {};
}

// Whole numbers of at least `least`; false for anything else.
bool numbers(const Item& item, std::int64_t least, std::vector<std::int64_t>& out) {
    const auto* tuple = std::get_if<Tuple>(&item);
    if (tuple == nullptr) return false;
    for (const Item& element : *tuple->items) {
        const auto* value = std::get_if<std::int64_t>(&element);
        if (value == nullptr || *value < least) return false;
        out.push_back(*value);
    }
    return true;
}

// The tensor lies within its storage, as far as its attributes say.
Result<void> check_tensor(const Attributes& attributes, std::uint64_t storage_bytes) {
    const auto* global = std::get_if<Global>(attributes[kDType]);
    const DType* dtype = global == nullptr ? nullptr : find_dtype(global->name);
    if (dtype == nullptr) return bad_shape("dtype is no torch.dtype of a KV cache");
    std::vector<std::int64_t> shape, stride;
    const auto* size = std::get_if<Made>(attributes[kShape]);
    const bool is_size =
        size != nullptr && size->name == kSize && size->called && size->arguments->size() == 1 && !size->state->has_value();
    if (!is_size || !numbers(size->arguments->front(), 1, shape)) return bad_shape("shape is no torch.Size of whole numbers");
    const bool strided = attributes[kStride] != nullptr;
    if (strided && (!numbers(*attributes[kStride], 0, stride) || stride.size() != shape.size()))
        return bad_shape(fmt::format("stride is no tuple of {} whole numbers, as many as shape has", shape.size()));
    std::int64_t last = 0, next = 1, bytes = 0;  // the last element, and the stride of a tensor without one
    bool overflow = false;
    for (std::size_t at = shape.size(); at-- > 0;) {
        std::int64_t extent = 0;
        overflow |= __builtin_mul_overflow(shape[at] - 1, strided ? stride[at] : next, &extent);
        overflow |= __builtin_add_overflow(last, extent, &last) || __builtin_mul_overflow(next, shape[at], &next);
    }
    overflow |= __builtin_add_overflow(last, 1, &last) || __builtin_mul_overflow(last, dtype->bytes, &bytes);
    if (overflow || static_cast<std::uint64_t>(bytes) > storage_bytes)
        return bad_shape(fmt::format("the tensor does not fit its storage of {} bytes", storage_bytes));
    if (const Item* offset = attributes[kStorageOffset]) {
        const auto* shift = std::get_if<std::int64_t>(offset);
        if (shift == nullptr || *shift != 0) return bad_shape("storage_offset is not 0");
    }
    return {};
}

// 01234567-89ab-cdef-0123-456789abcdef, also behind "GPU-".
bool is_uuid(std::string_view text) {
    constexpr std::string_view kForm = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    if (text.starts_with("GPU-")) text.remove_prefix(4);
    return std::ranges::equal(text, kForm, [](char c, char form) {
        return form == '-' ? c == '-' : std::isxdigit(static_cast<unsigned char>(c)) != 0;
    });
}

}  // namespace

Result<CudaWrapper> read_cuda_wrapper(std::string_view bytes) {
    if (bytes.size() > kMaxInput) return bad_shape(fmt::format("{} bytes are too many", bytes.size()));
    PEGA_ASSIGN(const Pickle pickle, Pickle::read(bytes, known_global));
    PEGA_ASSIGN(const Attributes attributes, attributes_of(pickle.root()));
    CudaWrapper out;
    PEGA_TRY(read_handle(*attributes[kHandle], out));
    PEGA_TRY(check_tensor(attributes, out.storage_bytes));
    const auto* uuid = std::get_if<std::string>(attributes[kDeviceUuid]);
    if (uuid == nullptr || !is_uuid(*uuid)) return bad_shape("device_uuid is no UUID");
    out.device_uuid = *uuid;
    return out;
}

}  // namespace pegaflow::server

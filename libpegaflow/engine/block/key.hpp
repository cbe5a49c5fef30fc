// SPDX-License-Identifier: Apache-2.0
// key.hpp - the identity of a block: namespace and layout, storage group, and the whole content hash.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/hash.hpp"
#include "pegaflow/engine.hpp"

namespace pegaflow::engine {

// Compared in full: two blocks are one only when every byte of their hashes is equal.
struct BlockKey {
    std::uint64_t scope = 0;  // the engine's number for a namespace with a layout fingerprint
    std::uint32_t group = 0;
    std::uint32_t length = 0;
    std::array<char, kMaxHashBytes> bytes;  // the first `length` are set

    // `hash` has at most kMaxHashBytes.
    BlockKey(std::uint64_t scope_number, std::uint32_t storage_group, std::string_view hash) noexcept
        : scope(scope_number), group(storage_group), length(static_cast<std::uint32_t>(hash.size())) {
        std::memcpy(bytes.data(), hash.data(), hash.size());
    }
    std::string_view hash() const noexcept { return {bytes.data(), length}; }
};

// The table hash of a key given by its parts. [data]
inline std::uint64_t table_hash(std::uint64_t scope, std::uint32_t group, std::string_view hash) noexcept {
    return base::hash_bytes(hash.data(), hash.size(), scope * 0x9e3779b97f4a7c15ULL + group);
}

// A key by its parts, which it borrows, and its table hash, which is computed once.
struct KeyView {
    KeyView(std::uint64_t scope_number, std::uint32_t storage_group, std::string_view content) noexcept
        : scope(scope_number), group(storage_group), text(content), hash(table_hash(scope_number, storage_group, content)) {}
    KeyView(const BlockKey& key) noexcept : KeyView(key.scope, key.group, key.hash()) {}

    std::uint64_t scope;
    std::uint32_t group;
    std::string_view text;  // the content hash
    std::uint64_t hash;
};

inline bool same_hash(std::string_view a, std::string_view b) noexcept {
    if (a.size() != b.size()) return false;
    // Most hashes have 32 bytes: a length that the compiler knows costs no call.
    if (b.size() == 32) return std::memcmp(a.data(), b.data(), 32) == 0;
    return std::memcmp(a.data(), b.data(), b.size()) == 0;
}

inline bool same_key(const BlockKey& key, std::uint64_t scope, std::uint32_t group, std::string_view hash) noexcept {
    return key.scope == scope && key.group == group && same_hash(key.hash(), hash);
}

}  // namespace pegaflow::engine

// SPDX-License-Identifier: Apache-2.0
#include "base/arena.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

namespace {

using pegaflow::base::Arena;

TEST(Arena, PiecesAreAlignedAndApart) {
    Arena arena;
    std::vector<std::pair<unsigned char*, std::size_t>> pieces;
    for (std::size_t i = 0; i < 2000; ++i) {
        const std::size_t bytes = 1 + i * 37 % 5000;
        auto* piece = static_cast<unsigned char*>(arena.allocate(bytes));
        ASSERT_EQ(reinterpret_cast<std::uintptr_t>(piece) % Arena::kAlignment, 0U);
        std::memset(piece, static_cast<int>(i % 251), bytes);
        pieces.emplace_back(piece, bytes);
    }
    for (std::size_t i = 0; i < pieces.size(); ++i) {
        const auto [piece, bytes] = pieces[i];
        ASSERT_EQ(piece[0], i % 251);
        ASSERT_EQ(piece[bytes - 1], i % 251);
    }
}

TEST(Arena, APieceMayBeLargerThanAHugePage) {
    Arena arena;
    constexpr std::size_t kBytes = std::size_t{5} << 20;
    auto* first = static_cast<unsigned char*>(arena.allocate(kBytes));
    auto* second = static_cast<unsigned char*>(arena.allocate(64));
    first[0] = first[kBytes - 1] = 1;
    second[63] = 2;
    EXPECT_EQ(first[kBytes - 1], 1);
}

TEST(Arena, WhatTheSystemDoesNotHaveIsNotPromised) {
    Arena arena;
    EXPECT_THROW(arena.allocate(std::size_t{1} << 60), std::bad_alloc);
    EXPECT_NE(arena.allocate(64), nullptr) << "and the arena stays usable";
}

}  // namespace

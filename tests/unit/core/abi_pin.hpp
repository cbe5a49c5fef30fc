// SPDX-License-Identifier: Apache-2.0
// abi_pin.hpp - the place and size of a member of the ABI, as numbers that never change.
#pragma once

#include <cstddef>

#define PIN_SIZE(type, size) EXPECT_EQ(sizeof(type), std::size_t{size}) << #type
#define PIN(type, member, offset, length)                                                 \
    EXPECT_EQ(offsetof(type, member), std::size_t{offset}) << #type "." #member " moved"; \
    EXPECT_EQ(sizeof(type::member), std::size_t{length}) << #type "." #member " has another size"

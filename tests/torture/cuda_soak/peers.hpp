// SPDX-License-Identifier: Apache-2.0
// peers.hpp - transfers between this process and others, which are killed at random moments.
//
// Each side has an inbox that the other writes, and an outbox that the other reads. The child overwrites the parent's inbox
// with the bytes of a round and sends a value; the parent looks whether all are there, overwrites the child's inbox and sends
// one back, whereupon the child looks and begins the next round. Both read the other's outbox beside that.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "tests/torture/cuda_soak/phase.hpp"

namespace pegaflow::soak {

constexpr std::uint64_t kBoxBytes = 4U << 20;
constexpr std::uint64_t kHostBoxBytes = 1U << 20;
constexpr std::uint32_t kAnswered = 7;  // the value that comes to the child
constexpr std::uint32_t kUnread = 8;    // a value that nobody asks for

// What a box holds. Both processes know the seed.
enum class Box : std::uint64_t { kParentOut, kChildOut, kChildHost, kChildRound, kParentRound };
const std::uint8_t* box_window(std::uint64_t seed, Box box, std::uint64_t round = 0);

// The body of a parent's thread: one child after the other until the phase is over, at least one.
void run_peers(Phase& phase, const std::string& device, std::uint64_t number);
// The whole other process: arguments as the parent gives them. It ends when it is killed, or with a code that says what failed.
int run_child(const std::string& device, const std::string& path, std::uint64_t seed, std::uint32_t value);

}  // namespace pegaflow::soak

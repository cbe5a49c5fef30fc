// SPDX-License-Identifier: Apache-2.0
#include "base/hash.hpp"

#include <set>

namespace pegaflow::base {
namespace {

TEST(Hash, TellsLengthsContentsAndSeedsApart) {
    const std::vector<unsigned char> zeros(100, 0);
    std::set<std::uint64_t> seen;
    for (std::size_t length = 0; length <= zeros.size(); ++length) seen.insert(hash_bytes(zeros.data(), length, 1));
    EXPECT_EQ(seen.size(), 101U);
    for (std::size_t i = 0; i < zeros.size(); ++i) {
        std::vector<unsigned char> changed = zeros;
        changed[i] = 1;
        seen.insert(hash_bytes(changed.data(), changed.size(), 1));
    }
    EXPECT_EQ(seen.size(), 201U);
    EXPECT_NE(hash_bytes("x", 1, 1), hash_bytes("x", 1, 2));
    EXPECT_EQ(hash_bytes("x", 1, 1), hash_bytes("x", 1, 1));
}

TEST(Hash, SpreadsConsecutiveNumbersOverShards) {
    constexpr int kShards = 64;
    constexpr int kKeys = 64000;
    std::vector<int> count(kShards);
    for (std::uint64_t key = 0; key < kKeys; ++key) ++count[hash_bytes(&key, sizeof key, 7) % kShards];
    for (const int n : count) EXPECT_NEAR(n, kKeys / kShards, 200);
}

}  // namespace
}  // namespace pegaflow::base

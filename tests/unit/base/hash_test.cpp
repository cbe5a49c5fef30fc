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

TEST(Hash, NoWordThatCouldBeKnownHidesTheOthers) {
    // Zero, all ones, and the constants of the wyhash family, with which a factor would be zero if they were used.
    const std::uint64_t known[] = {0, 1, UINT64_MAX, 0xa0761d6478bd642fULL, 0xe7037ed1a0b428dbULL, 0x8ebc6af09c88c6e3ULL};
    for (const std::size_t words : {2, 4, 6}) {
        for (std::size_t fixed = 0; fixed < words; ++fixed) {
            for (const std::uint64_t word : known) {
                std::set<std::uint64_t> seen;
                std::vector<std::uint64_t> text(words);
                text[fixed] = word;
                for (std::uint64_t other = 1; other <= 200; ++other) {
                    text[fixed ^ 1] = other;
                    seen.insert(hash_bytes(text.data(), words * 8, 1));
                }
                EXPECT_EQ(seen.size(), 200U) << words << " words, word " << fixed;
            }
        }
    }
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

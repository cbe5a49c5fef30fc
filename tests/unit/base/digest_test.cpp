// SPDX-License-Identifier: Apache-2.0
#include "pegaflow/digest.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

using pegaflow::digest_part;

std::vector<unsigned char> random_bytes(std::size_t count, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<unsigned char> bytes(count);
    for (auto& byte : bytes) byte = static_cast<unsigned char>(random());
    return bytes;
}

// From a transcription of the definition in another language.
TEST(Digest, KnownAnswers) {
    std::vector<unsigned char> counting(1024);
    for (std::size_t i = 0; i < counting.size(); ++i) counting[i] = static_cast<unsigned char>(i);
    std::vector<unsigned char> line(2056);
    for (std::size_t i = 0; i < line.size(); ++i) line[i] = static_cast<unsigned char>(i * 7 + 3);
    const std::vector<unsigned char> zeros(8), ones(4096, 255);
    EXPECT_EQ(digest_part(zeros.data(), 0), 0U);
    EXPECT_EQ(digest_part(zeros.data(), zeros.size()), 0xece307d5a3a41397U);
    EXPECT_EQ(digest_part(counting.data(), counting.size()), 0xca6e1826261ad8feU);
    EXPECT_EQ(digest_part(ones.data(), ones.size()), 0x98f5c1d8b4e8d0beU);
    EXPECT_EQ(digest_part("pegaflow", 8, 4096), 0xc18cf84f1e165a54U);
    EXPECT_EQ(digest_part(line.data(), line.size()), 0xa0b7761d0d41ffa4U);
}

TEST(Digest, IsTheSumOfItsPartsWhereverTheyLieInMemory) {
    const auto page = random_bytes(40'000, 1);
    const std::uint64_t whole = digest_part(page.data(), page.size());
    std::mt19937_64 random(2);
    for (int round = 0; round < 200; ++round) {
        std::uint64_t sum = 0;
        std::vector<unsigned char> copy(page.size() + 16);
        for (std::size_t at = 0; at < page.size();) {
            const std::size_t part = std::min<std::size_t>(8 * (1 + random() % 600), page.size() - at);
            const std::size_t shift = random() % 16;
            std::copy_n(page.begin() + static_cast<std::ptrdiff_t>(at), part,
                        copy.begin() + static_cast<std::ptrdiff_t>(shift));
            sum += digest_part(copy.data() + shift, part, at);
            at += part;
        }
        ASSERT_EQ(sum, whole);
    }
}

#if defined(__x86_64__)
TEST(Digest, EveryInstructionSetGivesTheSame) {
    const bool avx2 = __builtin_cpu_supports("avx2"), avx512 = __builtin_cpu_supports("avx512f");
    if (!avx2) GTEST_SKIP() << "the processor has neither AVX2 nor AVX-512";
    const auto bytes = random_bytes(20'000, 6);
    std::mt19937_64 random(7);
    for (std::size_t words = 0; words < 2400; words += words < 600 ? 1 : 37) {
        const unsigned char* const from = bytes.data() + random() % 64;
        const std::uint64_t key = random();
        const std::uint64_t expected = pegaflow::detail::digest_words(from, words, key);
        ASSERT_EQ(pegaflow::detail::digest_avx2(from, words, key), expected) << words;
        if (avx512) {
            ASSERT_EQ(pegaflow::detail::digest_avx512(from, words, key), expected) << words;
        }
    }
}
#endif

// What a change of one word adds; other words do not matter.
std::uint64_t change(const unsigned char* word, std::uint64_t place, unsigned bit) {
    unsigned char changed[8];
    std::copy_n(word, 8, changed);
    changed[bit / 8] ^= static_cast<unsigned char>(1U << bit % 8);
    return digest_part(changed, 8, place) - digest_part(word, 8, place);
}

// Two changed bits go unnoticed only when their changes cancel.
TEST(Digest, FindsEveryErrorOfOneAndOfTwoBits) {
    for (const bool zeros : {true, false}) {
        auto page = random_bytes(4096, 3);
        if (zeros) std::ranges::fill(page, 0);
        std::unordered_map<std::uint64_t, std::pair<std::size_t, unsigned>> seen;
        for (std::size_t at = 0; at < page.size(); at += 8) {
            for (unsigned bit = 0; bit < 64; ++bit) {
                const std::uint64_t by = change(&page[at], at, bit);
                ASSERT_NE(by, 0U) << "bit " << bit << " of the word at " << at;
                const auto other = seen.find(0 - by);
                if (other != seen.end() && other->second.first != at)
                    ADD_FAILURE() << "bits of the words at " << at << " and " << other->second.first << " cancel";
                seen[by] = {at, bit};
            }
        }
        // Two bits of one word.
        for (std::size_t at = 0; at < page.size(); at += 8) {
            for (unsigned first = 0; first < 64; ++first) {
                unsigned char changed[8];
                std::copy_n(&page[at], 8, changed);
                changed[first / 8] ^= static_cast<unsigned char>(1U << first % 8);
                const std::uint64_t before = change(&page[at], at, first);
                for (unsigned second = first + 1; second < 64; ++second)
                    ASSERT_NE(before + change(changed, at, second), 0U) << at << " " << first << " " << second;
            }
        }
    }
}

TEST(Digest, FindsWhatGoesWrongWithPages) {
    const auto page = random_bytes(65536, 4);
    const std::uint64_t whole = digest_part(page.data(), page.size());
    std::mt19937_64 random(5);
    for (int round = 0; round < 2000; ++round) {
        auto bad = page;
        const std::size_t length = 8U << random() % 10;
        const std::size_t a = random() % (page.size() / length) * length;
        std::size_t b = random() % (page.size() / length) * length;
        if (a == b) b = (b + length) % page.size();
        const auto from = bad.begin() + static_cast<std::ptrdiff_t>(a);
        const auto other = bad.begin() + static_cast<std::ptrdiff_t>(b);
        const auto count = static_cast<std::ptrdiff_t>(length);
        switch (round % 4) {
            case 0:
                std::swap_ranges(from, from + count, other);
                break;  // two fragments changed places
            case 1:
                std::fill_n(from, count, 0);
                break;  // one was not copied
            case 2:
                std::copy_n(other, count, from);
                break;  // one was copied twice
            default:
                std::rotate(bad.begin(), from + count, bad.end());  // the page was shifted
        }
        if (bad == page) continue;
        ASSERT_NE(digest_part(bad.data(), bad.size()), whole) << round;
    }
}

}  // namespace

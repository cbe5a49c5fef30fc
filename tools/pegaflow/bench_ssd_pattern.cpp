// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "tools/pegaflow/bench_ssd.hpp"

namespace pegaflow::cli::ssd {
namespace {

std::uint64_t word(std::uint64_t seed, std::uint64_t i) {
    std::uint64_t x = (i + 1) * 0x9e3779b97f4a7c15ULL + seed * 0xd1342543de82ef95ULL;
    x ^= x >> 32;
    return x * 0xff51afd7ed558ccdULL;
}

}  // namespace

void fill_words(std::uint8_t* to, std::uint64_t bytes, std::uint64_t seed, std::uint64_t first_word) {
    for (std::uint64_t i = 0; i < bytes / 8; ++i) {
        const std::uint64_t value = word(seed, first_word + i);
        std::memcpy(to + i * 8, &value, 8);
    }
}

std::uint64_t wrong_words(const std::uint8_t* bytes, std::uint64_t length, std::uint64_t seed, std::uint64_t first_word) {
    std::uint64_t wrong = 0;
    for (std::uint64_t i = 0; i < length / 8; ++i) {
        std::uint64_t value = 0;
        std::memcpy(&value, bytes + i * 8, 8);
        wrong += value == word(seed, first_word + i) ? 0 : 8;
    }
    return wrong;
}

}  // namespace pegaflow::cli::ssd

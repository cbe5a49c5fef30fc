// SPDX-License-Identifier: Apache-2.0
#include "base/crc32c.hpp"

#include <numeric>

namespace pegaflow::base {
namespace {

TEST(Crc32c, AgreesWithRfc3720) {
    const std::vector<std::uint8_t> zeros(32, 0);
    const std::vector<std::uint8_t> ones(32, 0xFF);
    std::vector<std::uint8_t> rising(32);
    std::iota(rising.begin(), rising.end(), std::uint8_t{0});
    EXPECT_EQ(crc32c(zeros.data(), 32), 0x8A9136AAU);
    EXPECT_EQ(crc32c(ones.data(), 32), 0x62A8AB43U);
    EXPECT_EQ(crc32c(rising.data(), 32), 0x46DD794EU);
    EXPECT_EQ(crc32c("123456789", 9), 0xE3069283U);
    EXPECT_EQ(crc32c(nullptr, 0), 0U);
}

TEST(Crc32c, ContinuesOverPieces) {
    const std::string text = "the digest of a whole is that of its pieces, one after the other";
    const std::uint32_t whole = crc32c(text.data(), text.size());
    for (std::size_t cut = 0; cut <= text.size(); ++cut) {
        EXPECT_EQ(crc32c(text.data() + cut, text.size() - cut, crc32c(text.data(), cut)), whole) << cut;
    }
}

}  // namespace
}  // namespace pegaflow::base

// SPDX-License-Identifier: Apache-2.0
#include "pegaflow/bytes.hpp"

namespace pegaflow {
namespace {

TEST(ParseSize, AcceptsWhatPeopleWrite) {
    EXPECT_EQ(*parse_size("512"), 512U);
    EXPECT_EQ(*parse_size("4K"), 4096U);
    EXPECT_EQ(*parse_size("30gb"), std::uint64_t{30} << 30);
    EXPECT_EQ(*parse_size("1.5 GiB"), (std::uint64_t{3} << 30) / 2);
    EXPECT_EQ(*parse_size(" 7 mib "), std::uint64_t{7} << 20);
    EXPECT_EQ(*parse_size("2TB"), std::uint64_t{2} << 40);
}

TEST(ParseSize, RefusesEverythingElseWithTheText) {
    for (const char* bad : {"", "-1", "1x", "gb", "1.2.3", "4KK", "99999999999tb", "18446744073709551616", "16777216.0tb"}) {
        const auto size = parse_size(bad);
        ASSERT_FALSE(size) << bad;
        EXPECT_EQ(size.error().code, Code::kInvalid);
        EXPECT_NE(size.error().message.find(bad), std::string::npos);
    }
}

TEST(ParseSize, SaysWhatIsWrongAtTheEnds) {
    EXPECT_EQ(*parse_size("18446744073709551615"), UINT64_MAX);
    EXPECT_EQ(*parse_size("16777215tb"), std::uint64_t{16777215} << 40);
    EXPECT_NE(parse_size("16777216tb").error().message.find("too large"), std::string::npos);
    EXPECT_NE(parse_size(std::string(400, '9')).error().message.find("too large"), std::string::npos);
    EXPECT_NE(parse_size("-1gb").error().message.find("negative"), std::string::npos);
}

TEST(FormatSize, DropsZeros) {
    EXPECT_EQ(format_size(0), "0 B");
    EXPECT_EQ(format_size(1536), "1.5 KiB");
    EXPECT_EQ(format_size(std::uint64_t{30} << 30), "30 GiB");
}

}  // namespace
}  // namespace pegaflow

// SPDX-License-Identifier: Apache-2.0
#include "server/pickle.hpp"

#include <random>

#include "tests/unit/server/pickles.hpp"

namespace pegaflow::server {
namespace {

template <std::size_t kLength>
std::string_view bytes(const std::uint8_t (&data)[kLength]) {
    return {reinterpret_cast<const char*>(data), kLength};
}

void expect_wrapper(std::string_view pickle) {
    const auto wrapper = read_cuda_wrapper(pickle);
    ASSERT_TRUE(wrapper) << wrapper.error().message;
    EXPECT_EQ(wrapper->device_uuid, "01234567-89ab-cdef-0123-456789abcdef");
    ASSERT_EQ(wrapper->ipc_handle.size(), 64U);
    for (int i = 0; i < 64; ++i) EXPECT_EQ(wrapper->ipc_handle[static_cast<std::size_t>(i)], static_cast<char>(i));
    EXPECT_EQ(wrapper->storage_bytes, 1U << 20);
    EXPECT_EQ(wrapper->offset, 4096U);
}

TEST(Pickle, ReadsTheWrapperOfEveryProtocol) {
    expect_wrapper(bytes(testing::kProtocol3));
    expect_wrapper(bytes(testing::kProtocol4));
    expect_wrapper(bytes(testing::kProtocol5));
}

TEST(Pickle, ReadsAVersionedHandle) { expect_wrapper(bytes(testing::kVersioned)); }

TEST(Pickle, RefusesExpandableSegmentsWithTheRemedy) {
    const auto wrapper = read_cuda_wrapper(bytes(testing::kExpandable));
    ASSERT_FALSE(wrapper);
    EXPECT_NE(wrapper.error().message.find("expandable_segments:False"), std::string::npos);
}

TEST(Pickle, RefusesEverythingElse) {
    EXPECT_NE(read_cuda_wrapper(bytes(testing::kShifted)).error().message.find("storage_offset"), std::string::npos);
    EXPECT_NE(read_cuda_wrapper(bytes(testing::kEvil)).error().message.find("global"), std::string::npos);
    EXPECT_NE(read_cuda_wrapper(bytes(testing::kProtocol2)).error().message.find("protocol is not 3 to 5"), std::string::npos);
    EXPECT_FALSE(read_cuda_wrapper(bytes(testing::kOtherClass)));
    EXPECT_FALSE(read_cuda_wrapper(""));
    EXPECT_FALSE(read_cuda_wrapper(std::string(2 << 20, '(')));
    const std::string nested = ")" + std::string(500'000, '\x85') + ".";  // a tuple in a tuple in a tuple ...
    EXPECT_NE(read_cuda_wrapper(nested).error().message.find("too many opcodes"), std::string::npos);
    const std::string_view good = bytes(testing::kProtocol5);
    for (std::size_t length = 0; length < good.size(); ++length)
        EXPECT_FALSE(read_cuda_wrapper(good.substr(0, length))) << length;
}

TEST(Pickle, SurvivesChangedBytes) {
    std::mt19937 random(1);
    std::size_t refused = 0;
    for (int i = 0; i < 20000; ++i) {
        std::string changed(bytes(testing::kProtocol5));
        for (std::uint32_t k = 0; k <= random() % 4; ++k) changed[random() % changed.size()] = static_cast<char>(random());
        refused += read_cuda_wrapper(changed) ? 0 : 1;
    }
    EXPECT_GT(refused, 0U);
}

}  // namespace
}  // namespace pegaflow::server

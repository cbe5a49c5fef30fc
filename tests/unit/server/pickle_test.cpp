// SPDX-License-Identifier: Apache-2.0
#include "server/pickle.hpp"

#include <fmt/format.h>

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

TEST(Pickle, ReadsWhatOldClientsSendWithoutStrideAndOffset) { expect_wrapper(bytes(testing::kOldClient)); }

std::string refusal(std::string_view pickle) {
    const auto wrapper = read_cuda_wrapper(pickle);
    return wrapper ? "accepted" : wrapper.error().message;
}

constexpr const char* kProto = "\x80\x05";

#define EXPECT_REFUSED(name, text) EXPECT_THAT(refusal(bytes(testing::name)), ::testing::HasSubstr(text))

TEST(Pickle, RefusesGlobalsByName) {
    EXPECT_REFUSED(kEvil, "a global that is none of those expected: posix system");
    EXPECT_REFUSED(kTorchLoad, "a global that is none of those expected: torch load");
    const std::string longest(64, 'm');
    EXPECT_THAT(refusal(fmt::format("{}c{}mmm\nf\n.", kProto, longest)), ::testing::HasSubstr(fmt::format("{}...", longest)));
    EXPECT_THAT(refusal("\x80\x03"
                        "cos\n\x1b[2J\n."),
                ::testing::HasSubstr("os ?[2J"));
}

TEST(Pickle, RefusesOtherObjects) {
    for (const std::string_view other : {bytes(testing::kOtherClass), bytes(testing::kCalled), bytes(testing::kNoState)})
        EXPECT_THAT(refusal(other), ::testing::HasSubstr("it is another object"));
}

TEST(Pickle, RefusesOtherAttributes) {
    EXPECT_REFUSED(kMoreAttributes, "it has another attribute, requires_grad");
    EXPECT_REFUSED(kTwoHandles, "it has handle twice");
    EXPECT_REFUSED(kNoHandle, "handle is missing");
    EXPECT_REFUSED(kNoDtype, "dtype is missing");
    EXPECT_REFUSED(kNoShape, "shape is missing");
    EXPECT_REFUSED(kNoDeviceUuid, "device_uuid is missing");
    EXPECT_REFUSED(kUuidBytes, "device_uuid is no UUID");
    EXPECT_REFUSED(kUuidShort, "device_uuid is no UUID");
    EXPECT_REFUSED(kUuidOther, "device_uuid is no UUID");
    EXPECT_REFUSED(kShifted, "storage_offset is not 0");
}

TEST(Pickle, RefusesOtherHandles) {
    EXPECT_REFUSED(kHandleList, "handle is no tuple");
    EXPECT_REFUSED(kHandleOfSeven, "handle has 7 fields, expected 8");
    EXPECT_REFUSED(kField0, "handle field 0 is no device index");
    EXPECT_REFUSED(kDevice, "handle field 0 is no device index");
    EXPECT_REFUSED(kField1, "handle field 1, the memory handle, is no bytes");
    EXPECT_REFUSED(kField2, "handle field 2 is no size");
    EXPECT_REFUSED(kStorageSize, "handle field 2 is no size");
    EXPECT_REFUSED(kField3, "handle field 3 is no offset");
    EXPECT_REFUSED(kStorageEnd, "handle field 3 is no offset");
    EXPECT_REFUSED(kField4, "handle field 4, the name of the reference counter");
    EXPECT_REFUSED(kField5, "handle field 5 is no offset");
    EXPECT_REFUSED(kField6, "handle field 6, the event handle, is not 64 bytes");
    EXPECT_REFUSED(kShortEvent, "handle field 6, the event handle, is not 64 bytes");
    EXPECT_REFUSED(kField7, "handle field 7 is not true or false");
    EXPECT_REFUSED(kLaterHandle, "a memory handle of version 4 and 66 bytes is not known");
}

TEST(Pickle, RefusesTensorsThatAreNone) {
    EXPECT_REFUSED(kDTypeText, "dtype is no torch.dtype");
    EXPECT_REFUSED(kDTypeSize, "dtype is no torch.dtype");
    EXPECT_REFUSED(kShapeTuple, "shape is no torch.Size");
    EXPECT_REFUSED(kShapeZero, "shape is no torch.Size");
    EXPECT_REFUSED(kShapeTexts, "shape is no torch.Size");
    EXPECT_REFUSED(kShortStride, "stride is no tuple of 3 whole numbers");
    EXPECT_REFUSED(kNegativeStride, "stride is no tuple of 3 whole numbers");
    EXPECT_REFUSED(kTooLarge, "does not fit its storage of 1048576 bytes");
    EXPECT_REFUSED(kTooLargeOld, "does not fit its storage of 1048576 bytes");
    EXPECT_REFUSED(kOverflow, "does not fit its storage of 1048576 bytes");
}

TEST(Pickle, RefusesWhatIsNoWholePickle) {
    EXPECT_NE(read_cuda_wrapper(bytes(testing::kProtocol2)).error().message.find("protocol is not 3 to 5"), std::string::npos);
    EXPECT_FALSE(read_cuda_wrapper(""));
    EXPECT_FALSE(read_cuda_wrapper(std::string(2 << 20, '(')));
    const std::string nested =
        fmt::format("{}){}.", kProto, std::string(500'000, '\x85'));  // a tuple in a tuple in a tuple ...
    EXPECT_NE(read_cuda_wrapper(nested).error().message.find("too many opcodes"), std::string::npos);
    const std::string_view good = bytes(testing::kProtocol5);
    EXPECT_THAT(refusal(fmt::format("{}.", good)), ::testing::HasSubstr("bytes follow its end"));
    EXPECT_THAT(refusal(good.substr(2)), ::testing::HasSubstr("does not begin with its protocol"));
    EXPECT_THAT(refusal(fmt::format("{}{}", kProto, good)), ::testing::HasSubstr("does not begin with its protocol"));
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

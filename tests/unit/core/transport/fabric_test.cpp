// SPDX-License-Identifier: Apache-2.0
#include "pegaflow/transfer.hpp"

namespace pegaflow {
namespace {

TEST(Fabric, ListsTheHostDeviceAndOpensItOnce) {
    auto fabric = Fabric::open({.backends = {"host"}});
    ASSERT_TRUE(fabric) << fabric.error().message;
    ASSERT_EQ((*fabric)->devices().size(), 1U);
    EXPECT_EQ((*fabric)->devices()[0].name, "host:0");
    auto first = (*fabric)->device("host:0");
    auto second = (*fabric)->device("host:0");
    ASSERT_TRUE(first && second);
    EXPECT_EQ(*first, *second);
    EXPECT_TRUE((*first)->capabilities().flags & PEGA_CAP_READ);
    EXPECT_TRUE((*fabric)->route("host:0", PEGA_MEMORY_HOST));
    EXPECT_EQ((*fabric)->route("host:0", PEGA_MEMORY_GPU).error().code, Code::kUnsupported);
}

TEST(Fabric, NamesWhatIsMissing) {
    auto fabric = Fabric::open({.backends = {"nowhere"}});
    ASSERT_FALSE(fabric);
    EXPECT_EQ(fabric.error().code, Code::kNotFound);
    EXPECT_NE(fabric.error().message.find("nowhere"), std::string::npos);
    auto host = Fabric::open({.backends = {"host"}});
    ASSERT_TRUE(host);
    EXPECT_NE((*host)->device("host:7").error().message.find("host:0"), std::string::npos);
    EXPECT_EQ((*host)->device_by_uuid("GPU-1234").error().code, Code::kNotFound);
    EXPECT_EQ((*host)->module("no_such_policy").error().code, Code::kNotFound);
}

TEST(Fabric, TwoFabricsLiveInOneProcess) {
    auto a = Fabric::open({.backends = {"host"}});
    auto b = Fabric::open({.backends = {"host"}});
    ASSERT_TRUE(a && b);
    auto on_a = (*a)->device("host:0");
    auto on_b = (*b)->device("host:0");
    ASSERT_TRUE(on_a && on_b);
    EXPECT_NE((*on_a)->handle(), (*on_b)->handle());
}

TEST(Fabric, RefusesAnOptionThatTheBackEndCannotUse) {
    FabricOptions options{.backends = {"host"}};
    options.options["host"]["threads"] = "many";
    auto fabric = Fabric::open(options);
    ASSERT_TRUE(fabric);
    EXPECT_EQ((*fabric)->device("host:0").error().code, Code::kInvalid);
}

TEST(Fabric, OpensTheInnerDeviceThroughItsWrapper) {
    FabricOptions options{.search_path = {PEGA_TEST_MODULES "/fake", PEGA_TEST_MODULES "/wrapper"}, .backends = {"fake"}};
    options.wrap = {{"wrapper", "fake"}};
    options.options["fake"]["depth"] = "9";
    auto fabric = Fabric::open(options);
    ASSERT_TRUE(fabric) << fabric.error().message;
    ASSERT_EQ((*fabric)->devices().size(), 2U);
    EXPECT_EQ((*fabric)->devices()[0].name, "fake:0");
    auto device = (*fabric)->device("fake:0");
    ASSERT_TRUE(device) << device.error().message;
    EXPECT_EQ((*device)->capabilities().max_page_bytes, 4242U);  // the wrapper's mark
    EXPECT_EQ((*device)->capabilities().max_batches, 9U);        // the inner one's own option arrived
    Region local = *(*device)->allocate(PEGA_MEMORY_HOST, 64);
    Region remote = *(*device)->allocate(PEGA_MEMORY_HOST, 64);
    Channel channel = *(*device)->open_channel();
    Transfer transfer;
    transfer.flat(local, remote).range(0, 0, 64);
    EXPECT_EQ(*channel.submit(transfer)->wait(), 64U);
}

TEST(Fabric, RefusesAWrapperTwiceAndOneThatIsMissing) {
    FabricOptions options{.search_path = {PEGA_TEST_MODULES "/fake", PEGA_TEST_MODULES "/wrapper"}, .backends = {"fake"}};
    options.wrap = {{"wrapper", "fake"}, {"wrapper", "fake"}};
    EXPECT_EQ(Fabric::open(options).error().code, Code::kInvalid);
    options.wrap = {{"nothing_like_it", "fake"}};
    auto missing = Fabric::open(options);
    ASSERT_FALSE(missing);
    EXPECT_NE(missing.error().message.find("nothing_like_it"), std::string::npos);
}

TEST(Fabric, PassesOnWhyABackEndCannotWorkHere) {
    FabricOptions options{.search_path = {PEGA_TEST_MODULES "/fake"}};
    options.options["fake"]["refuse"] = "the moon is full";
    auto fabric = Fabric::open(options);
    ASSERT_TRUE(fabric);
    for (const ModuleReport& report : (*fabric)->modules()) {
        if (report.name != "fake") continue;
        EXPECT_EQ(report.problem, "the moon is full");
    }
    EXPECT_EQ((*fabric)->device("fake:0").error().code, Code::kNotFound);
}

TEST(Fabric, FindsADeviceByItsUuidWithAndWithoutPrefix) {
    auto fabric = Fabric::open({.search_path = {PEGA_TEST_MODULES "/fake"}, .backends = {"fake"}});
    ASSERT_TRUE(fabric);
    auto with = (*fabric)->device_by_uuid("GPU-fake-zero");
    auto without = (*fabric)->device_by_uuid("fake-zero");
    ASSERT_TRUE(with && without);
    EXPECT_EQ(*with, *without);
    EXPECT_EQ((*with)->info().name, "fake:0");
    EXPECT_EQ((*fabric)->device_by_uuid("").error().code, Code::kNotFound);
}

}  // namespace
}  // namespace pegaflow

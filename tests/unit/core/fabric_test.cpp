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

}  // namespace
}  // namespace pegaflow

// SPDX-License-Identifier: Apache-2.0
// Whose memory workers may register.
#include <algorithm>

#include "pegaflow/engine.hpp"
#include "pegaflow/transfer.hpp"
#include "tests/unit/engine/replica.hpp"

namespace pegaflow {
namespace {

using testing::Replica;

TEST(Devices, OnlyThoseOfTheListMayBeRegistered) {
    const auto host = Fabric::open({.backends = {"host"}});
    ASSERT_TRUE(host) << host.error().message;
    const auto unknown = Engine::create({.pool_bytes = 8 << 20, .devices = {"host:0", "cuda:7"}}, **host);
    ASSERT_FALSE(unknown);
    EXPECT_EQ(unknown.error().message, "no device \"cuda:7\"; there are: host:0");
    Replica replica({});
    {
        auto engine = Engine::create({.pool_bytes = 8 << 20, .devices = {"host:0"}}, **host);
        ASSERT_TRUE(engine) << engine.error().message;
        EXPECT_TRUE((*engine)->register_worker(replica.registration()));
    }
    const auto both = Fabric::open({.backends = {"host", "nvme"}});
    if (!both) GTEST_SKIP() << both.error().message;
    const auto other = std::ranges::find((*both)->devices(), "nvme", &DeviceInfo::backend);
    if (other == (*both)->devices().end()) GTEST_SKIP() << "no device besides the host's";
    auto engine = Engine::create({.pool_bytes = 8 << 20, .devices = {other->name}}, **both);
    ASSERT_TRUE(engine) << engine.error().message;
    const auto refused = (*engine)->register_worker(replica.registration());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::kInvalid);
    EXPECT_THAT(refused.error().message,
                ::testing::HasSubstr("workers may not register memory of device host:0, only of: " + other->name));
}

}  // namespace
}  // namespace pegaflow

// SPDX-License-Identifier: Apache-2.0
// Its answers are tested against a server, in tests/integration.
#include "server/admin.hpp"

#include <string>

#include "tests/unit/base/no_threads.hpp"
#include "tests/unit/server/host_engine.hpp"

namespace pegaflow::server {
namespace {

class AdminTest : public HostEngineTest {
protected:
    Result<std::unique_ptr<Admin>> start(const std::string& address) { return Admin::start(address, *engine_, {}); }
};

TEST_F(AdminTest, StartsAndEnds) {
    const auto admin = start("127.0.0.1:0");
    ASSERT_TRUE(admin) << admin.error().message;
    EXPECT_GT((*admin)->port(), 0);
}

TEST_F(AdminTest, SaysThatThereAreNoThreads) {
    const testing::NoThreads none;
    const auto admin = start("127.0.0.1:0");
    ASSERT_FALSE(admin);
    EXPECT_EQ(admin.error().code, Code::kNoMemory);
}

TEST_F(AdminTest, AnAddressInUseIsRefused) {
    const auto first = start("127.0.0.1:0");
    ASSERT_TRUE(first);
    const auto second = start("127.0.0.1:" + std::to_string((*first)->port()));
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, Code::kInvalid);
}

}  // namespace
}  // namespace pegaflow::server

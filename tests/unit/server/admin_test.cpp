// SPDX-License-Identifier: Apache-2.0
// Its answers are tested against a server, in tests/integration.
#include "server/admin.hpp"

#include <gtest/gtest.h>

#include <string>

#include "pegaflow/transfer.hpp"
#include "tests/unit/base/no_threads.hpp"

namespace pegaflow::server {
namespace {

class AdminTest : public ::testing::Test {
protected:
    void SetUp() override {
        fabric_ = *Fabric::open({.backends = {"host"}});
        EngineOptions options;
        options.pool_bytes = 1 << 20;
        engine_ = *Engine::create(options, *fabric_);
    }
    Result<std::unique_ptr<Admin>> start(const std::string& address) { return Admin::start(address, *engine_, {}); }

    std::unique_ptr<Fabric> fabric_;
    std::unique_ptr<Engine> engine_;
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

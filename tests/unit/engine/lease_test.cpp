// SPDX-License-Identifier: Apache-2.0
#include "engine/lease.hpp"

namespace pegaflow::engine {
namespace {

using Clock = LeaseTable::Clock;

TEST(LeaseTable, EachDeviceTakesItsShareOnceAndTheLastOneEndsIt) {
    LeaseTable table;
    const LeaseId id = table.create("a", {}, 2, Clock::now() + std::chrono::seconds(10));
    EXPECT_EQ(table.peek(id, "b", 0).error().code, Code::kInvalid);
    EXPECT_TRUE(table.consume(id, "a", 0));
    EXPECT_EQ(table.consume(id, "a", 0).error().code, Code::kNotFound);
    EXPECT_TRUE(table.consume(id, "a", 1));
    EXPECT_EQ(table.size(), 0U);
}

TEST(LeaseTable, RenewalMovesTheExpiry) {
    LeaseTable table;
    const auto now = Clock::now();
    const LeaseId id = table.create("a", {}, 1, now + std::chrono::seconds(1));
    EXPECT_TRUE(table.renew(id, now + std::chrono::seconds(100)));
    EXPECT_TRUE(table.renew(id, now + std::chrono::seconds(100)));
    EXPECT_EQ(table.expire(now + std::chrono::seconds(50)), 0U);
    EXPECT_EQ(table.expire(now + std::chrono::seconds(101)), 1U);
    EXPECT_EQ(table.renew(id, now).error().code, Code::kNotFound);
}

TEST(LeaseTable, AnExpiredLeaseIsUnknown) {
    LeaseTable table;
    const LeaseId id = table.create("a", {}, 1, Clock::now() - std::chrono::seconds(1));
    EXPECT_EQ(table.peek(id, "a", 0).error().message, "query lease is unknown or expired");
    EXPECT_EQ(table.drop_instance("a"), 1U);
}

}  // namespace
}  // namespace pegaflow::engine

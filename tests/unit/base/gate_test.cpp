// SPDX-License-Identifier: Apache-2.0
#include "base/gate.hpp"

namespace pegaflow::base {
namespace {

TEST(Gate, RefusesAfterCloseAndWaitsForThoseInside) {
    Gate gate;
    auto pass = gate.enter();
    ASSERT_TRUE(pass);
    gate.close();
    EXPECT_FALSE(gate.enter());
    EXPECT_FALSE(gate.wait_empty_until(std::chrono::steady_clock::now() + std::chrono::milliseconds(5)));
    std::thread leaver([moved = std::move(pass)]() mutable { Gate::Pass last = std::move(moved); });
    gate.wait_empty();
    EXPECT_EQ(gate.inside(), 0U);
    leaver.join();
}

}  // namespace
}  // namespace pegaflow::base

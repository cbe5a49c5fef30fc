// SPDX-License-Identifier: Apache-2.0
#include "core/transport/device.hpp"

namespace pegaflow::core {
namespace {

TEST(InFlightTable, ANameIsGoodForExactlyOneEnd) {
    InFlightTable table;
    Transfer a;
    Transfer b;
    const std::uint64_t first = table.insert({&a.impl(), nullptr, nullptr});
    EXPECT_EQ(table.find(first), &a.impl());
    EXPECT_EQ(table.take(first).transfer, &a.impl());
    EXPECT_EQ(table.take(first).transfer, nullptr);
    // The slot is used again under another name; the old one stays dead.
    const std::uint64_t second = table.insert({&b.impl(), nullptr, nullptr});
    EXPECT_NE(first, second);
    EXPECT_EQ(static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(second));
    EXPECT_EQ(table.find(first), nullptr);
    EXPECT_EQ(table.take(first).transfer, nullptr);
    EXPECT_EQ(table.take(second).transfer, &b.impl());
    EXPECT_EQ(table.take(UINT64_MAX).transfer, nullptr);
}

TEST(InFlightTable, ManyThreadsNeverShareAName) {
    InFlightTable table;
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            Transfer mine;
            for (int i = 0; i < 5000; ++i) {
                const std::uint64_t name = table.insert({&mine.impl(), nullptr, nullptr});
                if (table.take(name).transfer != &mine.impl()) ++wrong;
            }
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(wrong.load(), 0);
}

}  // namespace
}  // namespace pegaflow::core

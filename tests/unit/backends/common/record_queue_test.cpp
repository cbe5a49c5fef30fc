// SPDX-License-Identifier: Apache-2.0
#include "common/record_queue.hpp"

#include <gtest/gtest.h>

namespace backend_common {
namespace {

// Pops into records of `size` bytes each and returns their user_data.
std::vector<std::uint64_t> pop(RecordQueue& queue, std::uint32_t capacity) {
    std::vector<pega_completion> records(capacity);
    records.front().size = sizeof(pega_completion);
    const std::uint32_t count = queue.pop(records.data(), capacity);
    std::vector<std::uint64_t> out;
    for (std::uint32_t i = 0; i < count; ++i) out.push_back(records[i].user_data);
    return out;
}

TEST(RecordQueue, KeepsTheOrderWhileItGrowsAndTurns) {
    RecordQueue queue;
    std::uint64_t in = 0;
    std::uint64_t out = 0;
    for (const std::uint64_t pushes : {700U, 900U, 3000U, 10U}) {
        for (std::uint64_t i = 0; i < pushes; ++i) {
            pega_completion record{};
            record.size = sizeof record;
            record.user_data = in++;
            queue.push(record);
        }
        for (const std::uint64_t user_data : pop(queue, 600)) EXPECT_EQ(user_data, out++);
    }
    while (!queue.empty()) {
        for (const std::uint64_t user_data : pop(queue, 64)) EXPECT_EQ(user_data, out++);
    }
    EXPECT_EQ(out, in);
    EXPECT_TRUE(pop(queue, 1).empty());
}

TEST(RecordQueue, FillsWhatACallerOfAnOlderVersionHasRoomFor) {
    RecordQueue queue;
    pega_completion record{};
    record.size = sizeof record;
    record.user_data = 7;
    queue.push(record);
    queue.push(record);
    constexpr std::uint32_t kOld = 24;
    alignas(pega_completion) unsigned char bytes[2 * kOld + 8] = {};
    auto* first = reinterpret_cast<pega_completion*>(bytes);
    first->size = kOld;
    bytes[2 * kOld] = 0xAB;
    EXPECT_EQ(queue.pop(first, 2), 2U);
    EXPECT_EQ(bytes[2 * kOld], 0xAB) << "nothing behind the caller's array is written";
    EXPECT_EQ(reinterpret_cast<pega_completion*>(bytes + kOld)->size, kOld);
}

}  // namespace
}  // namespace backend_common

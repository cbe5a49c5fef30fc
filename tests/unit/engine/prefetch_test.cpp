// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/engine/prefetch_fixture.hpp"

#include "tests/unit/base/no_threads.hpp"

namespace pegaflow::engine {
namespace {

TEST_P(PrefetchTest, ReadsInTheOrderOfThePrefixAndHoldsWhatCame) {
    start();
    EXPECT_EQ(poll("r"), Progress::kUnknown);
    ASSERT_TRUE(ask("r", "abc"));
    EXPECT_EQ(poll("r"), Progress::kLoading);
    land_all(3);
    wait_over("r");
    EXPECT_EQ(last_, Progress::kOver);
    EXPECT_EQ(fetched_, 3U);
    EXPECT_EQ(held_.size(), 3U);
    EXPECT_EQ(tier_.order, (std::vector<std::string>{"a", "b", "c"}));
    EXPECT_EQ(inserted_, tier_.order);
    EXPECT_EQ(poll("r"), Progress::kUnknown) << "told once";
}

TEST_P(PrefetchTest, TheNextReadsStartWhenOneLandsAndNotWhenItIsChecked) {
    start({.groups_ahead = 2});
    ask("r", "abcde");
    wait_begun(3);  // a is being read, b and c are prepared
    {
        const std::lock_guard lock(tier_.mutex);
        EXPECT_EQ(tier_.landing.size(), 1U) << "the bytes in flight are bounded";
    }
    tier_.land();
    {
        const std::lock_guard lock(tier_.mutex);
        EXPECT_EQ(tier_.landing.size(), 1U) << "started by the thread on which a landed";
    }
    land_all(4);
    wait_over("r");
    EXPECT_EQ(fetched_, 5U);
    EXPECT_EQ(tier_.order, (std::vector<std::string>{"a", "b", "c", "d", "e"}));
}

TEST_P(PrefetchTest, SmallReadsAreReplacedWhereTheyLand) {
    start();
    ask("r", "abc");
    wait_begun(1);
    land_all(3);
    wait_over("r");
    EXPECT_EQ(fetched_, 3U);
    for (int i = 0; small() && i < 100 && tier_.at_once.empty(); ++i) {  // until no other thread is faster
        ask("more", std::string{static_cast<char>('A' + i / 10), static_cast<char>('0' + i % 10)});
        land_all(2);
        wait_over("more");
    }
    EXPECT_EQ(tier_.at_once, small() ? std::set{std::this_thread::get_id()} : std::set<std::thread::id>());
    EXPECT_FALSE(tier_.in_time.contains(std::this_thread::get_id())) << "the thread on which a read lands must not wait";
}

TEST_P(PrefetchTest, WhatWouldWaitForRoomIsLeftToAThreadThatMay) {
    start({.bytes_in_flight = 2 * bytes_, .bytes_together = 2 * bytes_});
    tier_.must_wait = {"c", "e", "f"};
    ask("r", "abcdefg");
    wait_begun(2);
    land_until_over("r");
    EXPECT_EQ(last_, Progress::kOver);
    EXPECT_EQ(fetched_, 7U);
    EXPECT_EQ(inserted_, (std::vector<std::string>{"a", "b", "c", "d", "e", "f", "g"})) << "each once";
}

TEST_P(PrefetchTest, ARequestMayGoAwayWhileItsReadIsLeftToAnotherThread) {
    start();
    tier_.must_wait = {"b"};
    bool left = false;  // to another thread, where the read of a landed; else that one was faster
    tier_.meanwhile = [&] {
        left = true;
        prefetcher_->drop_instance("i");
    };
    ask("r", "abc");
    wait_begun(1);
    land_all(1);
    if (left) {
        EXPECT_EQ(poll("r"), Progress::kUnknown);
    }
    tier_.meanwhile = nullptr;
    prefetcher_->drop_instance("i");
    ask("again", "bd");
    land_until_over("again");
    EXPECT_EQ(last_, Progress::kOver);
    EXPECT_EQ(fetched_, 2U);
}

TEST_P(PrefetchTest, WhatLandedIsInsertedWhileAnotherReadHangs) {
    threads_ = 3;
    start({.bytes_in_flight = 2 * bytes_});
    ask("r", "ab");
    wait_begun(2);
    land_all(1);
    for (int i = 0; i < 5000 && inserted() == 0; ++i) std::this_thread::sleep_for(1ms);
    EXPECT_EQ(inserted(), 1U);
    EXPECT_EQ(poll("r"), Progress::kLoading);
    land_all(1);
    wait_over("r");
    EXPECT_EQ(fetched_, 2U);
}

TEST_P(PrefetchTest, WhatWasPreparedForARequestThatWentAwayIsNotRead) {
    start({.groups_ahead = 2});
    ask("r", "abcde");
    wait_begun(3);
    ask("s", "xc");  // c is prepared already
    EXPECT_EQ(prefetcher_->poll(name("r", 2), &held_, &fetched_), Progress::kUnknown) << "other hashes: r is forgotten";
    land_all(3);  // a, c, x
    wait_over("s");
    EXPECT_EQ(fetched_, 2U);
    const std::lock_guard lock(tier_.mutex);
    EXPECT_EQ(tier_.landing.size(), 0U);
    EXPECT_EQ(tier_.started, 3U) << "not b";
}

TEST_P(PrefetchTest, SmallBlocksAreReadTogether) {
    start({.bytes_in_flight = 100 * bytes_, .bytes_together = 3 * bytes_});
    tier_.missing = {"e"};
    ask("r", "abcdefgh");
    wait_begun(8);  // before it is known that e is missing
    land_all(3);
    wait_over("r");
    EXPECT_EQ(last_, Progress::kOver);
    EXPECT_EQ(tier_.groups, (std::vector<std::size_t>{3, 3, 2}));
    EXPECT_EQ(tier_.order, (std::vector<std::string>{"a", "b", "c", "d", "e", "f", "g", "h"}));
    EXPECT_EQ(fetched_, 4U) << "the prefix ends where a block is gone";
}

TEST_P(PrefetchTest, ABlockThatCannotBeReadDoesNotTakeItsNeighboursAlong) {
    start({.bytes_in_flight = 100 * bytes_, .bytes_together = 3 * bytes_});
    tier_.unreadable = {"c"};
    ask("r", "abcd");
    wait_begun(4);
    land_all(5);  // abc, d, then a, b, c each alone
    wait_over("r");
    EXPECT_EQ(last_, Progress::kOver);
    EXPECT_EQ(fetched_, 3U) << "all but c";
    EXPECT_EQ(tier_.groups, (std::vector<std::size_t>{3, 1, 1, 1, 1}));
}

TEST_P(PrefetchTest, AWrongBlockAmongGoodOnesIsTheOnlyMiss) {
    start({.bytes_in_flight = 100 * bytes_, .bytes_together = 3 * bytes_});
    tier_.corrupt = {"c"};
    ask("r", "abc");
    land_all(1);
    wait_over("r");
    EXPECT_EQ(fetched_, 2U);
    EXPECT_EQ(inserted_, (std::vector<std::string>{"a", "b"}));
}

TEST_P(PrefetchTest, TheFrontOfEveryPrefixComesBeforeTheTailOfAny) {
    start();
    ask("first", "abcd");
    wait_begun(1);  // a is being read
    ask("second", "wxyz");
    land_all(8);
    wait_over("first");
    EXPECT_EQ(tier_.order, (std::vector<std::string>{"a", "w", "b", "x", "c", "y", "d", "z"}));
}

TEST_P(PrefetchTest, ABlockThatTwoWantIsReadOnceAndAtTheEarlierPlace) {
    start();
    ask("first", "abcd");
    wait_begun(1);
    ask("second", "dc");
    land_all(4);
    wait_over("first");
    wait_over("second");
    EXPECT_EQ(fetched_, 2U);
    EXPECT_EQ(tier_.order, (std::vector<std::string>{"a", "d", "b", "c"})) << "d is the front of the second prefix";
}

TEST_P(PrefetchTest, APrefixEndsAtItsFirstGap) {
    start();
    tier_.corrupt = {"b"};
    ask("r", "abcdef");
    land_until_over("r");
    EXPECT_EQ(fetched_, 1U);
    EXPECT_LE(tier_.begun(), 3U) << "what lies behind the gap is not read, but for what began before it was found";
    {
        const std::lock_guard lock(tier_.mutex);  // one of those may still be prepared
        tier_.missing = {"y"};
    }
    ask("s", "xyz");
    land_until_over("s");
    EXPECT_EQ(fetched_, 1U);
}

TEST_P(PrefetchTest, AHashThatIsNamedTwiceIsOneBlock) {
    start();
    ask("dropped", "abab");
    wait_begun(1);
    EXPECT_EQ(prefetcher_->poll(name("dropped", 2), &held_, &fetched_), Progress::kUnknown) << "other hashes: it is dropped";
    land_all(1);
    tier_.corrupt = {"y"};
    ask("failed", "xyyx");
    land_all(2);
    wait_over("failed");
    EXPECT_EQ(last_, Progress::kOver);
    EXPECT_EQ(fetched_, 1U);
}

TEST_P(PrefetchTest, RequestsBeyondTheBoundWaitTheirTurn) {
    start({.max_bytes = 3 * bytes_});
    ask("first", "abc");
    ask("second", "xyz");
    land_all(3);
    for (int i = 0; i < 20; ++i) std::this_thread::sleep_for(1ms);
    EXPECT_EQ(poll("second"), Progress::kLoading);
    EXPECT_EQ(tier_.begun(), 3U) << "the first one's blocks are held until it is asked for";
    wait_over("first");
    EXPECT_EQ(fetched_, 3U);
    held_.clear();
    land_all(3);
    wait_over("second");
    EXPECT_EQ(fetched_, 3U);
}

TEST_P(PrefetchTest, WhoeverWaitsIsLetInInTurnAlsoWhenOthersWentAway) {
    start({.max_bytes = bytes_});  // one at a time
    for (const char* request : {"z", "y", "x", "w"}) ask(request, request);
    wait_begun(1);
    EXPECT_EQ(prefetcher_->poll(name("y", 2), &held_, &fetched_), Progress::kUnknown);  // y goes
    land_until_over("z");
    land_until_over("x");
    land_until_over("w");
    const std::lock_guard lock(tier_.mutex);
    EXPECT_EQ(tier_.order, (std::vector<std::string>{"z", "x", "w"}));
}

TEST_P(PrefetchTest, ThereAreAsManyRequestsAsMayBe) {
    start({.max_requests = 2});
    EXPECT_TRUE(ask("first", "a"));
    EXPECT_TRUE(ask("second", "b"));
    const auto third = begin(name("third"), "c");
    ASSERT_FALSE(third);
    EXPECT_EQ(third.error().code, Code::kQueueFull);
    EXPECT_EQ(poll("third"), Progress::kUnknown);
    EXPECT_TRUE(ask("second", "b")) << "it has begun";
    TierStats stats;
    prefetcher_->add_stats(stats);
    EXPECT_EQ(stats.prefetch_queue_full, 1U);
    EXPECT_EQ(stats.prefetch_requests, 2U);
    land_until_over("first");
    EXPECT_TRUE(ask("third", "c")) << "one is over";
    land_until_over("second");
    land_until_over("third");
}

// As when two threads ask, and neither has begun it when the other looks.
TEST_P(PrefetchTest, OneNameIsOneRequest) {
    start();
    EXPECT_TRUE(ask("r", "ab"));
    EXPECT_TRUE(ask("r", "ab"));
    wait_begun(1);
    TierStats stats;
    prefetcher_->add_stats(stats);
    EXPECT_EQ(stats.prefetch_requests, 1U);
    EXPECT_EQ(stats.prefetch_joined, 0U);
    const auto other = begin(name("r", 2), "cd");
    EXPECT_TRUE(other && *other);
    EXPECT_EQ(begin({"another instance", "r", 0, 1}, "e").value_or(false), true);
    EXPECT_EQ(begin({"i", "r", 1, 1}, "f").value_or(false), true);
    stats = {};
    prefetcher_->add_stats(stats);
    EXPECT_EQ(stats.prefetch_canceled, 1U);
    EXPECT_EQ(stats.prefetch_active, 3U);
}

TEST_P(PrefetchTest, ARequestLargerThanTheBoundGetsItsFront) {
    start({.max_bytes = 2 * bytes_});
    ask("r", "abcdef");
    land_all(2);
    wait_over("r");
    EXPECT_EQ(fetched_, 2U);
}

TEST_P(PrefetchTest, OtherHashesUnderTheSameNameAreAnotherRequest) {
    start();
    ask("r", "abc");
    wait_begun(1);
    EXPECT_EQ(prefetcher_->poll(name("r", 2), &held_, &fetched_), Progress::kUnknown);
    land_all(1);
    TierStats stats;
    prefetcher_->add_stats(stats);
    EXPECT_EQ(stats.prefetch_canceled, 1U);
    EXPECT_EQ(stats.prefetch_active, 0U);
    EXPECT_EQ(tier_.begun(), 1U) << "b and c were not wanted any more";
}

TEST_P(PrefetchTest, AForgottenRequestIsDroppedAndALateOneGetsWhatIsThere) {
    start({.time = 60min, .idle = 60min});
    ask("gone", "abc");
    wait_begun(1);
    prefetcher_->tick(Prefetcher::Clock::now() + 50min);
    EXPECT_EQ(poll("gone"), Progress::kLoading);
    prefetcher_->tick(Prefetcher::Clock::now() + 61min);  // both too late and forgotten
    EXPECT_EQ(poll("gone"), Progress::kUnknown);
    land_all(1);
    for (int i = 0; i < 5000 && inserted() == 0; ++i) std::this_thread::sleep_for(1ms);  // a had begun
    start({.time = 60min, .idle = 100h});
    ask("late", "xyz");
    wait_begun(2);
    land_all(1);
    const auto counted = [&] {  // y is being read, and x is not any more
        TierStats stats;
        prefetcher_->add_stats(stats);
        return tier_.begun() >= 3 && stats.prefetch_reading_blocks == 1;
    };
    for (int i = 0; i < 5000 && !counted(); ++i) std::this_thread::sleep_for(1ms);
    prefetcher_->tick(Prefetcher::Clock::now() + 61min);
    EXPECT_EQ(poll("late"), Progress::kOver);
    EXPECT_EQ(fetched_, 1U);
}

TEST_P(PrefetchTest, WhatIsSlowerThanComputingIsNotBegun) {
    start({.prefill_tokens_per_second = 1000, .tokens_per_block = 50});  // a block anew in 0.05 s, fetched in 0.1 s
    EXPECT_FALSE(ask("r", "ab"));
    EXPECT_EQ(poll("r"), Progress::kUnknown);
    TierStats stats;
    prefetcher_->add_stats(stats);
    EXPECT_EQ(stats.prefetch_too_slow, 1U);
}

// An estimate changes only when something is read: a tier that seemed too slow is tried again.
TEST_P(PrefetchTest, ATierThatSeemsTooSlowIsTriedNowAndThen) {
    start({.prefill_tokens_per_second = 1000, .tokens_per_block = 50, .probe_interval = 1ms});
    EXPECT_FALSE(ask("first", "ab"));
    std::this_thread::sleep_for(2ms);
    EXPECT_TRUE(ask("second", "ab"));
    EXPECT_FALSE(ask("third", "cd")) << "one is enough";
    land_until_over("second");
    EXPECT_EQ(fetched_, 2U);
    tier_.bytes_per_second = 1000.0 * static_cast<double>(bytes_);  // that is what the probe showed
    EXPECT_TRUE(ask("fourth", "ef"));
    EXPECT_TRUE(ask("fifth", "gh"));
    land_until_over("fourth");
    land_until_over("fifth");
    EXPECT_EQ(tier_.begun(), 6U);
}

TEST_P(PrefetchTest, ATrialOfATierThatSeemsTooSlowIsShort) {
    start({.max_bytes = 1000 * bytes_, .prefill_tokens_per_second = 1000, .tokens_per_block = 50, .probe_interval = 1ms});
    std::string many;
    for (int i = 0; i < 60; ++i) many += static_cast<char>('A' + i);
    EXPECT_FALSE(ask("r", many));
    std::this_thread::sleep_for(2ms);
    EXPECT_TRUE(ask("r", many));
    land_until_over("r");
    EXPECT_EQ(fetched_, std::min<std::uint64_t>(60, (1 << 20) / bytes_));
}

TEST_P(PrefetchTest, WhatHasComeIsNotWaitedForByOthers) {
    // A block anew in 0.45 s, fetched in 0.1 s.
    start({.prefill_tokens_per_second = 1000, .tokens_per_block = 450, .probe_interval = 1h});
    EXPECT_TRUE(ask("first", "abcd"));
    EXPECT_FALSE(ask("second", "x")) << "five to fetch take longer than one to compute";
    land_all(4);
    for (int i = 0; i < 5000 && inserted() < 4; ++i) std::this_thread::sleep_for(1ms);
    bool worth = false;
    for (int i = 0; i < 5000 && !worth; ++i) {
        worth = ask("third", "x");  // the first one is over, and nobody has asked for it yet
        if (!worth) std::this_thread::sleep_for(1ms);
    }
    EXPECT_TRUE(worth);
    land_until_over("third");
    wait_over("first");
    EXPECT_EQ(fetched_, 4U);
}

TEST_P(PrefetchTest, WithoutThreadsThereIsNone) {
    const testing::NoThreads none;
    const auto refused = Prefetcher::create(tier_, tier_, {.max_bytes = bytes_, .threads = 2}, [](BlockRef) {});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::kNoMemory);
}

TEST_P(PrefetchTest, RequestsOfAnInstanceGoWithIt) {
    start();
    ask("r", "abc");
    wait_begun(1);
    prefetcher_->drop_instance("another");
    EXPECT_EQ(poll("r"), Progress::kLoading);
    prefetcher_->drop_instance("i");
    EXPECT_EQ(poll("r"), Progress::kUnknown);
    land_all(1);
}

INSTANTIATE_TEST_SUITE_P(Checked, PrefetchTest, ::testing::Values(100, 100 << 10), [](const auto& parameter) {
    return std::string(parameter.param == 100 ? "WhereTheyLand" : "ByAThread");
});

}  // namespace
}  // namespace pegaflow::engine

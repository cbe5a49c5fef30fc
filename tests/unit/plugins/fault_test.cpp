// SPDX-License-Identifier: Apache-2.0
// What each rule of the plug-in fault does to batches of the host back end (docs/fault-injection.md).
#include <algorithm>
#include <random>

#include "tests/unit/plugins/fault_fixture.hpp"

namespace pegaflow {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto kPatience = 30s;

class Fault : public FaultFixture {
protected:
    void start(Rules rules) {
        ASSERT_EQ(open("host", std::move(rules), PEGA_MEMORY_HOST), "");
        std::memset(bytes(local_), 7, kBytes);
        std::memset(bytes(remote_), 9, kBytes);
    }
    Completion submit(Transfer& transfer) {
        auto completion = channel_.submit(transfer);
        EXPECT_TRUE(completion) << completion.error().message;
        return completion ? *completion : Completion();
    }
};

TEST_F(Fault, AStuckBatchIgnoresCancelsAndItsDeadlineAndThenMovesItsBytes) {
    start({{"stuck", "1"}, {"stuck_ms", "2000"}});
    Transfer transfer;
    fill(transfer, local_, remote_);
    transfer.deadline(Clock::now() + 1ms);
    const auto begin = Clock::now();
    const Completion stuck = submit(transfer);
    EXPECT_TRUE(channel_.cancel(transfer)) << "asked, and in vain";
    EXPECT_FALSE(stuck.done());
    const auto moved = stuck.wait_for(kPatience);
    ASSERT_TRUE(moved) << moved.error().message;
    EXPECT_GE(Clock::now() - begin, 2s);
    EXPECT_EQ(std::memcmp(bytes(local_), bytes(remote_), kBytes), 0);
}

TEST_F(Fault, ACloseWaitsForWhatIsStuck) {
    start({{"stuck", "1"}, {"stuck_ms", "2000"}});
    Transfer transfer;
    fill(transfer, local_, remote_);
    const Completion stuck = submit(transfer);
    const auto early = channel_.close(1ms);
    ASSERT_FALSE(early);
    EXPECT_EQ(early.error().code, Code::kRetry);
    EXPECT_FALSE(stuck.done());
    EXPECT_TRUE(channel_.close(kPatience));
    ASSERT_TRUE(stuck.wait_for(kPatience) || stuck.done());
}

TEST_F(Fault, EveryEndIsDelayedAlsoThoseOfBatchesThatNeverBegan) {
    for (const Rules& rule : {Rules{}, {{"fail", "1"}}, {{"drop", "1"}}, {{"hang", "1"}}}) {
        Rules rules = rule;
        rules["delay_us"] = "50000";
        start(rules);
        Transfer transfer;
        fill(transfer, local_, remote_);
        const auto begin = Clock::now();
        const Completion end = submit(transfer);
        if (rule.contains("hang")) {
            EXPECT_TRUE(channel_.cancel(transfer));
        }
        EXPECT_EQ(end.wait_for(kPatience).has_value(), !rule.contains("fail") && !rule.contains("hang"));
        EXPECT_TRUE(end.done());
        EXPECT_GE(Clock::now() - begin, 50ms);
        channel_ = {};
        local_ = {};
        remote_ = {};
    }
}

TEST_F(Fault, ABatchThatIsNotSoundIsRefusedWhateverTheRuleSays) {
    for (const char* rule : {"fail", "hang", "drop", "stuck"}) {
        start({{rule, "1"}});
        Transfer outside;
        outside.flat(local_, remote_).range(0, 1, kBytes);
        const auto refused = channel_.submit(outside);
        ASSERT_FALSE(refused) << rule;
        EXPECT_EQ(refused.error().code, Code::kInvalid) << rule;
        Transfer durable;
        fill(durable, local_, remote_);
        durable.durable();
        const auto unsupported = channel_.submit(durable);
        ASSERT_FALSE(unsupported) << rule;
        EXPECT_EQ(unsupported.error().code, Code::kUnsupported) << rule;
        pega_memory memory{};
        memory.size = sizeof memory;
        memory.source = PEGA_SOURCE_ADDRESS;
        memory.flags = PEGA_REGION_READ_ONLY;
        memory.address = remote_.address();
        memory.length = kBytes;
        const Region read_only = *device_->register_memory(memory);
        Transfer written;
        fill(written, local_, read_only);
        const auto invalid = channel_.submit(written);
        ASSERT_FALSE(invalid) << rule;
        EXPECT_EQ(invalid.error().code, Code::kInvalid) << rule;
        channel_ = {};
        local_ = {};
        remote_ = {};
    }
}

TEST_F(Fault, CorruptionStaysWithinTheBatch) {
    start({{"corrupt", "1"}});
    const std::vector<std::uint64_t> index = {1, 2};
    Transfer transfer;
    transfer.indices(index, index);
    pega_span empty{local_.handle(), remote_.handle(), 0, 1024, 0, 0, 1024, 0, 0, 1, 0};
    pega_span full = empty;
    full.page_bytes = 512;
    transfer.span(empty).span(full);
    ASSERT_TRUE(submit(transfer).wait_for(kPatience));
    std::vector<unsigned char> expected(kBytes, 9);
    std::memset(expected.data() + 1024, 7, 512);
    std::memset(expected.data() + 2048, 7, 512);
    expected[1024] ^= 1;
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), bytes(remote_)));

    Transfer flat;
    flat.flat(local_, remote_).range(0, 0, 0).range(0, 3000, 4);
    ASSERT_TRUE(submit(flat).wait_for(kPatience));
    std::memset(expected.data() + 3000, 7, 4);
    expected[3000] ^= 1;
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), bytes(remote_))) << "a page of no bytes has none to change";

    Transfer nothing;
    nothing.flat(local_, remote_).range(0, 0, 0);
    ASSERT_TRUE(submit(nothing).wait_for(kPatience));
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), bytes(remote_)));
}

TEST_F(Fault, AnEndThatIsToComeAfterTheNextOneDoesNotWaitForOneThatHangs) {
    start({{"reorder", "1"}, {"hang", "0.5"}, {"seed", "1"}});
    std::mt19937_64 random(1);  // the plug-in's: one number for `hang`, one for `reorder` where it does not
    std::vector<Transfer> transfers(8);
    std::vector<Completion> hanging, ending;
    for (Transfer& transfer : transfers) {
        const auto chance = [&](double p) { return std::uniform_real_distribution<>(0, 1)(random) < p; };
        const bool hangs = chance(0.5);
        if (!hangs) chance(1);
        const std::uint64_t offset = 64 * (hanging.size() + ending.size());  // its own: they run at one time
        transfer.flat(local_, remote_).range(offset, offset, 64);
        (hangs ? hanging : ending).push_back(submit(transfer));
    }
    ASSERT_FALSE(hanging.empty() || ending.empty());
    for (const Completion& end : ending) EXPECT_TRUE(end.wait_for(kPatience));
    for (const Completion& end : hanging) EXPECT_FALSE(end.done());
    for (Transfer& transfer : transfers) {
        const auto asked = channel_.cancel(transfer);
        EXPECT_TRUE(asked || asked.error().code == Code::kInvalid) << "it has ended";
    }
    for (const Completion& end : hanging) {
        const auto moved = end.wait_for(kPatience);
        ASSERT_FALSE(moved);
        EXPECT_EQ(moved.error().code, Code::kCanceled);
    }
}

TEST_F(Fault, AnOptionThatIsWrongIsSaid) {
    const std::string said = open("host", {{"stuck_ms", "0"}}, PEGA_MEMORY_HOST);
    EXPECT_NE(said.find("option stuck_ms=0 is not valid"), std::string::npos) << said;
}

}  // namespace
}  // namespace pegaflow

// SPDX-License-Identifier: Apache-2.0
// Loading: shares of leases, progress by layer, checks that burn nothing, and early ends.
#include "toy_worker.hpp"

namespace pegaflow {
namespace {

using namespace std::chrono_literals;
using toy::Hashes;
using toy::Hold;
using toy::ids;
using toy::ToyWorker;

class LoadTest : public toy::EngineTest {
protected:
    void SetUp() override {
        EngineTest::SetUp();
        open();
        enroll(worker_);
        fill(worker_, hashes_);
        worker_.wipe();
    }
    ToyWorker worker_{"i", 0, 0, 1, 1, 64, toy::layers(6, 512, 2, true)};
    Hashes hashes_{0, 16};
};

TEST_F(LoadTest, PositionsWithoutADestinationAreSkipped) {
    std::vector<std::uint32_t> targets = ids(20, 16);
    for (std::size_t i = 0; i < targets.size(); i += 3) targets[i] = kNoBlock;
    ASSERT_TRUE(load(worker_, lease_all("i", hashes_), targets));
    EXPECT_EQ(worker_.difference(hashes_, targets), "");
    for (std::uint32_t i = 0; i < 16; i += 3) EXPECT_TRUE(worker_.untouched(20 + i));
    const std::vector<std::uint32_t> none(16, kNoBlock);
    EXPECT_TRUE(load(worker_, lease_all("i", hashes_), none)) << "nothing to move is done at once";
    EXPECT_EQ(engine_->stats().leases, 0U);
}

TEST_F(LoadTest, LayersAreReportedInOrderUpToAll) {
    const LeaseId lease = lease_all("i", hashes_);
    auto request = loading(worker_, lease, ids(20, 16));
    std::mutex mutex;
    std::vector<std::size_t> landed;
    std::promise<Result<void>> done;
    const auto started = engine_->load_async(request->request, {[&](std::size_t layers) {
                                                                    const std::lock_guard lock(mutex);
                                                                    landed.push_back(layers);
                                                                },
                                                                [&](Result<void> r) { done.set_value(std::move(r)); }});
    ASSERT_TRUE(started) << started.error().message;
    ASSERT_TRUE(done.get_future().get());
    const std::lock_guard lock(mutex);
    ASSERT_FALSE(landed.empty());
    EXPECT_TRUE(std::is_sorted(landed.begin(), landed.end()));
    EXPECT_EQ(std::adjacent_find(landed.begin(), landed.end()), landed.end()) << "each report is news";
    EXPECT_EQ(landed.back(), 6U);
    EXPECT_EQ(worker_.difference(hashes_, ids(20, 16)), "");
}

TEST_F(LoadTest, SeveralLeasesAndLayerGroupsInOneLoad) {
    const auto head = query("i", hashes_.views(0, 10));
    const auto tail = query("i", hashes_.views(10, 6));
    auto request = loading(worker_, *head->lease, {});
    const std::vector<std::string_view> early = {"layer.00", "layer.01"}, late = {"layer.05", "layer.02"};
    request->groups = {std::span<const std::string_view>(early), std::span<const std::string_view>(late)};
    request->request.layer_groups = request->groups;
    const auto head_ids = ids(20, 10), tail_ids = ids(30, 6);
    const std::vector<std::uint32_t> no_tail(6, kNoBlock);
    const std::vector<std::span<const std::uint32_t>> head_groups = {head_ids, head_ids}, tail_groups = {tail_ids, no_tail};
    const std::vector<LeaseLoad> loads = {{*head->lease, head_groups}, {*tail->lease, tail_groups}};
    request->request.loads = loads;
    std::vector<std::size_t> landed;
    std::promise<Result<void>> done;
    ASSERT_TRUE(engine_->load_async(request->request, {[&](std::size_t n) { landed.push_back(n); },
                                                       [&](Result<void> r) { done.set_value(std::move(r)); }}));
    ASSERT_TRUE(done.get_future().get());
    ASSERT_FALSE(landed.empty());
    EXPECT_EQ(landed.back(), 4U);
    EXPECT_EQ(engine_->stats().load_bytes, (16U * 2 + 10U * 2) * 1024);
    EXPECT_EQ(engine_->stats().leases, 0U);
}

TEST_F(LoadTest, ChecksBurnNothing) {
    const LeaseId lease = lease_all("i", hashes_);
    const auto refused = [&](const LoadRequest& request, Code code, std::string_view text) {
        const auto result = engine_->load(request);
        ASSERT_FALSE(result);
        EXPECT_EQ(result.error().code, code) << result.error().message;
        EXPECT_THAT(result.error().message, ::testing::HasSubstr(text));
    };
    refused(loading(worker_, LeaseId{}, ids(0, 16))->request, Code::kNotFound, "query lease is unknown or expired");
    refused(loading(worker_, lease, ids(0, 15))->request, Code::kInvalid,
            "query lease block count 16 does not match destination block count 15 for group 0");
    refused(loading(worker_, lease, ids(49, 16))->request, Code::kInvalid, "destination block 64");
    auto l = loading(worker_, lease, ids(0, 16));
    l->ids_by_group.push_back(l->block_ids);
    l->loads[0].block_ids_by_group = l->ids_by_group;
    refused(l->request, Code::kInvalid, "load group count 2 does not match layer group count 1");
    l = loading(worker_, lease, ids(0, 16));
    l->names[3] = "layer.99";
    refused(l->request, Code::kInvalid, "layer.99");
    l = loading(worker_, lease, ids(0, 16));
    l->names[3] = l->names[2];
    refused(l->request, Code::kInvalid, "named twice");
    l = loading(worker_, lease, ids(0, 16));
    l->loads.push_back(l->loads[0]);
    l->request.loads = l->loads;
    refused(l->request, Code::kInvalid, "twice");
    l = loading(worker_, lease, ids(0, 16));
    l->request.layer_groups = {};
    refused(l->request, Code::kInvalid, "layer group");
    l = loading(worker_, lease, ids(0, 16));
    l->request.device_id = 9;
    refused(l->request, Code::kNotFound, "device 9");
    l = loading(worker_, lease, ids(0, 16));
    l->request.wait_event = "not an event";
    refused(l->request, Code::kCorrupt, "event");

    EXPECT_EQ(engine_->stats().loads_in_flight, 0U);
    ASSERT_TRUE(load(worker_, lease, ids(40, 16)));
    EXPECT_EQ(worker_.difference(hashes_, ids(40, 16)), "");
    refused(loading(worker_, lease, ids(40, 16))->request, Code::kNotFound, "query lease is unknown or expired");
}

TEST_F(LoadTest, ALeaseOfAnotherInstanceIsRefused) {
    ToyWorker other("k", 0, 0, 1, 1, 64, toy::layers(6, 512, 2, true));
    enroll(other);
    const LeaseId lease = lease_all("i", hashes_);
    const auto result = load(other, lease, ids(0, 16));
    ASSERT_FALSE(result);
    EXPECT_THAT(result.error().message, ::testing::HasSubstr("query lease belongs to instance i, got k"));
    EXPECT_TRUE(load(worker_, lease, ids(0, 16)));
}

TEST_F(LoadTest, ACancelledLoadEndsOnceAndOthersGoOn) {
    Hold hold(*fabric_);
    auto held = loading(worker_, lease_all("i", hashes_), ids(20, 16));
    held->request.local_event = hold.event();
    std::atomic<int> ends{0};
    std::promise<Result<void>> done;
    const auto id = engine_->load_async(held->request, {nullptr, [&](Result<void> r) {
                                                            ++ends;
                                                            done.set_value(std::move(r));
                                                        }});
    ASSERT_TRUE(id);
    EXPECT_TRUE(load(worker_, lease_all("i", hashes_), ids(0, 16))) << "a held load does not hold up the next";
    ASSERT_TRUE(engine_->cancel_load(*id));
    EXPECT_EQ(done.get_future().get().error().code, Code::kCanceled);
    EXPECT_EQ(engine_->cancel_load(*id).error().code, Code::kNotFound);
    hold.release();
    EXPECT_EQ(worker_.difference(hashes_, ids(0, 16)), "");
    EXPECT_TRUE(worker_.untouched(20)) << "no byte moves after the end";
    EXPECT_EQ(ends, 1);
    EXPECT_EQ(engine_->stats().canceled, 1U);
    EXPECT_EQ(engine_->stats().loads_in_flight, 0U);
}

TEST_F(LoadTest, ADeadlineEndsALoad) {
    Hold hold(*fabric_);
    auto held = loading(worker_, lease_all("i", hashes_), ids(20, 16));
    held->request.local_event = hold.event();
    held->request.deadline = std::chrono::steady_clock::now() + 20ms;
    const auto late = engine_->load(held->request);
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().code, Code::kDeadlineExceeded);
    EXPECT_TRUE(worker_.untouched(20));
}

TEST_F(LoadTest, AFullQueueBurnsNoShare) {
    EngineOptions options = small();
    options.max_queued_transfers = 1;
    open(options);
    enroll(worker_);
    fill(worker_, hashes_);
    Hold hold(*fabric_);
    std::atomic<int> ended{0};
    std::vector<std::unique_ptr<Loading>> accepted;
    std::optional<LeaseId> refused;
    for (int i = 0; i < 2000 && !refused; ++i) {
        const LeaseId lease = lease_all("i", hashes_);
        auto l = loading(worker_, lease, ids(20, 16));
        l->request.local_event = hold.event();
        const auto started = engine_->load_async(l->request, {nullptr, [&](Result<void>) { ++ended; }});
        if (started) {
            accepted.push_back(std::move(l));
            continue;
        }
        EXPECT_EQ(started.error().code, Code::kQueueFull);
        refused = lease;
    }
    ASSERT_TRUE(refused);
    hold.release();
    while (ended < static_cast<int>(accepted.size())) std::this_thread::sleep_for(1ms);
    EXPECT_TRUE(load(worker_, *refused, ids(40, 16))) << "the share is still there";
    EXPECT_EQ(worker_.difference(hashes_, ids(40, 16)), "");
}

TEST_F(LoadTest, BlocksThatMoveStayWhateverHappensToTheirLease) {
    Hold hold(*fabric_);
    const LeaseId lease = lease_all("i", hashes_);
    auto held = loading(worker_, lease, ids(20, 16));
    held->request.local_event = hold.event();
    std::promise<Result<void>> done;
    ASSERT_TRUE(engine_->load_async(held->request, {nullptr, [&](Result<void> r) { done.set_value(std::move(r)); }}));
    EXPECT_EQ(engine_->release(lease).error().code, Code::kNotFound) << "its only share is consumed";
    const MemoryCleanup cleanup = engine_->cleanup_memory();
    EXPECT_EQ(cleanup.still_referenced_blocks, 16U);
    EXPECT_EQ(cleanup.reclaimed_bytes, 0U);
    Hashes others(1000, 16);
    fill(worker_, others);
    worker_.wipe();
    hold.release();
    ASSERT_TRUE(done.get_future().get());
    EXPECT_EQ(worker_.difference(hashes_, ids(20, 16)), "");
}

TEST_F(LoadTest, ABlockThatLostItsDigestIsNeverLoaded) {
    EngineOptions options = small();
    options.verify_on_load = true;
    options.pool_file = ::testing::TempDir() + "pegaflow-load-test-pool-" + std::to_string(::getpid());
    open(options);
    enroll(worker_);
    fill(worker_, hashes_);
    ASSERT_TRUE(load(worker_, lease_all("i", hashes_), ids(20, 16)));
    ASSERT_EQ(worker_.difference(hashes_, ids(20, 16)), "");

    // Somebody else's stray write: the pool file is changed from outside at the first byte that is not zero.
    std::FILE* file = std::fopen(options.pool_file.c_str(), "r+b");
    ASSERT_NE(file, nullptr);
    std::remove(options.pool_file.c_str());
    int byte = 0;
    long at = -1;
    do {
        byte = std::fgetc(file);
        ++at;
    } while (byte == 0);
    ASSERT_NE(byte, EOF);
    std::fseek(file, at, SEEK_SET);
    std::fputc(byte ^ 1, file);
    std::fclose(file);

    const LeaseId lease = lease_all("i", hashes_);
    const auto bad = load(worker_, lease, ids(40, 16));
    ASSERT_FALSE(bad);
    EXPECT_EQ(bad.error().code, Code::kCorrupt);
    EXPECT_TRUE(worker_.untouched(50));
    EXPECT_EQ(engine_->stats().digest_mismatches, 1U);
    EXPECT_EQ(engine_->stats().quarantined_blocks, 1U);
    EXPECT_LT(query("i", hashes_.views())->hit_blocks, 16U) << "a miss from now on";
    EXPECT_EQ(engine_->stats().resident_blocks, 15U);
}

}  // namespace
}  // namespace pegaflow

// SPDX-License-Identifier: Apache-2.0
// Saving and loading byte for byte in every layout, what is copied once only, and what a save refuses.
#include "toy_worker.hpp"

namespace pegaflow {
namespace {

using namespace std::chrono_literals;
using toy::Hashes;
using toy::Hold;
using toy::ids;
using toy::ToyLayer;
using toy::ToyWorker;

class SaveTest : public toy::EngineTest {
protected:
    void SetUp() override {
        EngineTest::SetUp();
        open();
    }
    // Saves from all workers, then loads on each into other blocks and compares.
    void round_trip(const std::vector<ToyWorker*>& workers, std::uint32_t count) {
        Hashes hashes(100, count);
        for (ToyWorker* w : workers) enroll(*w);
        for (ToyWorker* w : workers) fill(*w, hashes, 1);
        const LeaseId lease = lease_all(workers[0]->registration.instance_id, hashes);
        for (ToyWorker* w : workers) {
            w->wipe();
            const auto loaded = load(*w, lease, ids(3, count));
            ASSERT_TRUE(loaded) << loaded.error().message;
            EXPECT_EQ(w->difference(hashes, ids(3, count)), "");
            EXPECT_TRUE(w->untouched(2));
            EXPECT_TRUE(w->untouched(3 + count));
        }
        EXPECT_EQ(engine_->stats().leases, 0U) << "the last worker ended the lease";
    }
};

TEST_F(SaveTest, OneWorker) {
    ToyWorker w("i", 0, 0, 1, 1, 32, toy::layers(4, 1000));
    round_trip({&w}, 20);
}

TEST_F(SaveTest, KeysAndValuesApart) {
    ToyWorker w("i", 0, 0, 1, 1, 32, toy::layers(3, 768, 2, true));
    round_trip({&w}, 20);
}

TEST_F(SaveTest, KeysAndValuesSideBySide) {
    ToyWorker w("i", 0, 0, 1, 1, 32, toy::layers(3, 768, 2, false));
    round_trip({&w}, 20);
}

TEST_F(SaveTest, TwoTensorParallelRanks) {
    ToyWorker a("i", 0, 0, 2, 2, 32, toy::layers(4, 512, 2, true));
    ToyWorker b("i", 1, 1, 2, 2, 32, toy::layers(4, 512, 2, true));
    round_trip({&a, &b}, 9);
}

TEST_F(SaveTest, TwoPipelineStages) {
    ToyWorker a("i", 0, 0, 1, 2, 32, toy::layers(2, 512));
    std::vector<ToyLayer> rest = {{"layer.02", 256, 1, false, 0, {}}, {"layer.03", 4096, 1, false, 0, {}}};
    ToyWorker b("i", 1, 0, 1, 2, 32, rest);
    b.registration.pp_rank = 1;
    round_trip({&a, &b}, 9);
}

TEST_F(SaveTest, PageFirstReplicasShareTheirPages) {
    ToyWorker a("i", 0, 0, 1, 2, 32, toy::layers(4, 576));
    ToyWorker b("i", 1, 0, 1, 2, 32, toy::layers(4, 576));
    a.registration.page_first = b.registration.page_first = true;
    round_trip({&a, &b}, 12);
    const EngineStats stats = engine_->stats();
    EXPECT_EQ(stats.saved_blocks, 12U) << "the second replica has nothing to copy";
    EXPECT_EQ(stats.duplicate_blocks, 12U);
    EXPECT_EQ(stats.save_bytes, 12U * a.block_bytes());
}

TEST_F(SaveTest, MoreLayersThanOneWordOfBits) {
    ToyWorker w("i", 0, 0, 1, 1, 16, toy::layers(130, 64));
    round_trip({&w}, 5);
}

TEST_F(SaveTest, HybridModelsFindEachStorageGroupApart) {
    std::vector<ToyLayer> hybrid = toy::layers(2, 512);
    hybrid.push_back({"mamba.0", 2048, 1, false, 1, {}});
    ToyWorker w("i", 0, 0, 1, 1, 32, hybrid);
    enroll(w);
    Hashes attention(0, 8), states(100, 4);
    w.write(attention, ids(0, 8));
    ASSERT_TRUE(save(w, attention, ids(0, 8), w.layer_names(0)));
    EXPECT_EQ(query("i", attention.views())->hit_blocks, 8U) << "a group is complete without the others";
    w.write(states, ids(20, 4));
    Hashes some(101, 2);
    ASSERT_TRUE(save(w, some, ids(21, 2), w.layer_names(1)));

    const auto found = query("i", states.views(), 1);
    ASSERT_TRUE(found) << found.error().message;
    EXPECT_EQ(found->hit_blocks, 2U);
    EXPECT_EQ(found->hit_positions, (std::vector<std::uint32_t>{1, 2}));
    QueryRequest whole;
    whole.instance_id = "i";
    whole.hashes = states.views();
    whole.request_id = "r";
    whole.group = 1;
    whole.whole_prefix_only = true;
    const auto part = engine_->query(whole);
    ASSERT_TRUE(part);
    EXPECT_FALSE(part->lease) << "no lease on a part";
    EXPECT_EQ(query("i", states.views(), 2).error().code, Code::kInvalid);

    w.wipe();
    ASSERT_TRUE(load(w, *found->lease, ids(5, 2), 1));
    EXPECT_EQ(w.difference(some, ids(5, 2), 1), "");
    const LeaseId lease = lease_all("i", attention);
    const auto wrong = load(w, lease, ids(0, 8), 1);
    ASSERT_FALSE(wrong);
    EXPECT_THAT(wrong.error().message, ::testing::HasSubstr("incompatible KV layouts"));
    ASSERT_TRUE(load(w, lease, ids(10, 8), 0)) << "the refused load burnt nothing";
    EXPECT_EQ(w.difference(attention, ids(10, 8), 0), "");
}

TEST_F(SaveTest, LayersMayComeOneByOneAndWithOtherBlockLists) {
    ToyWorker w("i", 0, 0, 1, 1, 32, toy::layers(3, 512));
    enroll(w);
    Hashes hashes(0, 6), first(0, 4), last(2, 4);
    w.write(hashes, ids(0, 6));
    ASSERT_TRUE(save(w, hashes, ids(0, 6), {"layer.01"}));
    EXPECT_EQ(query("i", hashes.views())->hit_blocks, 0U);
    EXPECT_EQ(engine_->stats().incomplete_blocks, 6U);
    ASSERT_TRUE(save(w, first, ids(0, 4), {"layer.00"}));
    // One request with a list of its own for each layer.
    auto mixed = saving(w, hashes, ids(0, 6), {"layer.02"});
    const auto last_ids = ids(2, 4);
    mixed->layers.push_back({"layer.00", last_ids, last.views()});
    mixed->request.layers = mixed->layers;
    const auto saved = engine_->save(mixed->request);
    ASSERT_TRUE(saved) << saved.error().message;
    EXPECT_EQ(saved->saved_blocks, 8U);
    EXPECT_EQ(saved->duplicate_blocks, 2U);
    EXPECT_EQ(engine_->stats().incomplete_blocks, 0U);
    w.wipe();
    ASSERT_TRUE(load(w, lease_all("i", hashes), ids(10, 6)));
    EXPECT_EQ(w.difference(hashes, ids(10, 6)), "");
}

TEST_F(SaveTest, ABlockIsAHitOnlyWhenEveryRankHasSavedIt) {
    ToyWorker a("i", 0, 0, 2, 2, 8, toy::layers(1, 256));
    ToyWorker b("i", 1, 1, 2, 2, 8, toy::layers(1, 256));
    enroll(a);
    enroll(b);
    Hashes hashes(0, 4), odd(1, 1);
    fill(a, hashes);
    EXPECT_EQ(query("i", hashes.views())->hit_blocks, 0U);
    ASSERT_TRUE(save(b, odd, ids(1, 1)));
    EXPECT_EQ(query("i", hashes.views())->hit_blocks, 0U) << "the prefix begins with a miss";
    EXPECT_TRUE(engine_->contains("i", odd.views()[0]));
    fill(b, hashes);
    EXPECT_EQ(query("i", hashes.views())->hit_blocks, 4U);
}

TEST_F(SaveTest, WhatIsThereIsNotCopiedAgain) {
    ToyWorker w("i", 0, 0, 1, 1, 32, toy::layers(2, 512));
    enroll(w);
    Hashes hashes(0, 8), more(4, 8);
    w.write(hashes, ids(0, 8));
    auto first = save(w, hashes, ids(0, 8));
    ASSERT_TRUE(first);
    EXPECT_EQ(first->saved_blocks, 8U);
    EXPECT_EQ(first->bytes, 8U * w.block_bytes());
    auto second = save(w, more, ids(4, 8));
    ASSERT_TRUE(second);
    EXPECT_EQ(second->saved_blocks, 4U);
    EXPECT_EQ(second->duplicate_blocks, 4U);
    auto third = save(w, hashes, ids(0, 8));
    EXPECT_EQ(third->saved_blocks, 0U);
    EXPECT_EQ(third->bytes, 0U);
    EXPECT_EQ(engine_->stats().resident_blocks, 12U);
}

TEST_F(SaveTest, TheSameHashTwiceInOneRequestIsCopiedOnce) {
    ToyWorker w("i", 0, 0, 1, 1, 32, toy::layers(2, 512));
    enroll(w);
    Hashes hashes(0, 1);
    w.write(hashes, {5});
    std::vector<std::string_view> twice = {hashes.views()[0], hashes.views()[0]};
    const std::vector<std::uint32_t> blocks = {5, 6};
    std::vector<SaveLayer> layers = {{"layer.00", blocks, twice}, {"layer.01", blocks, twice}};
    SaveRequest request;
    request.instance_id = "i";
    request.layers = layers;
    const auto saved = engine_->save(request);
    ASSERT_TRUE(saved);
    EXPECT_EQ(saved->saved_blocks, 1U);
    EXPECT_EQ(saved->duplicate_blocks, 1U);
}

TEST_F(SaveTest, WhatSomeoneElseCopiesIsLeftToHim) {
    ToyWorker w("i", 0, 0, 1, 1, 32, toy::layers(2, 512));
    enroll(w);
    Hashes hashes(0, 4);
    w.write(hashes, ids(0, 4));
    Hold hold(*fabric_);
    auto slow = saving(w, hashes, ids(0, 4));
    slow->request.local_event = hold.event();
    std::promise<Result<SaveOutcome>> done;
    engine_->save_async(slow->request, [&](Result<SaveOutcome> r) { done.set_value(std::move(r)); });
    const auto meanwhile = engine_->save(saving(w, hashes, ids(0, 4))->request);
    ASSERT_TRUE(meanwhile);
    EXPECT_EQ(meanwhile->saved_blocks, 0U);
    EXPECT_EQ(query("i", hashes.views())->hit_blocks, 0U) << "not visible before the copy has ended";
    hold.release();
    EXPECT_EQ(done.get_future().get()->saved_blocks, 4U);
    EXPECT_EQ(query("i", hashes.views())->hit_blocks, 4U);
}

TEST_F(SaveTest, SaysWhatIsWrongAndTakesNothing) {
    ToyWorker w("i", 0, 0, 1, 1, 8, toy::layers(2, 512));
    enroll(w);
    Hashes hashes(0, 2);
    const auto refused = [&](const SaveRequest& request, std::string_view text) {
        const auto result = engine_->save(request);
        ASSERT_FALSE(result);
        EXPECT_THAT(result.error().message, ::testing::HasSubstr(text));
    };
    auto s = saving(w, hashes, ids(0, 2));
    s->layers[1].hashes = hashes.views(0, 1);
    refused(s->request, "block_ids length 2 does not match block_hashes 1 for layer layer.01");
    s = saving(w, hashes, ids(7, 2));
    refused(s->request, "block_id 8");
    s = saving(w, hashes, ids(0, 2), {"layer.00", "layer.99"});
    refused(s->request, "layer layer.99 is not registered on device 0");
    s = saving(w, hashes, ids(0, 2), {"layer.00", "layer.00"});
    refused(s->request, "named twice");
    const auto elsewhere = ids(5, 2);
    s = saving(w, hashes, ids(0, 2), {"layer.00", "layer.01", "layer.00"});
    s->layers[2].block_ids = elsewhere;
    refused(s->request, "named twice");
    s = saving(w, hashes, ids(0, 2));
    s->request.deadline = std::chrono::steady_clock::now() - 1s;
    refused(s->request, "deadline");
    s = saving(w, hashes, ids(0, 2));
    s->request.device_id = 3;
    refused(s->request, "device 3 not found in instance i");
    s = saving(w, hashes, ids(0, 2));
    s->request.tp_rank = 1;
    refused(s->request, "tp_rank");
    s = saving(w, hashes, ids(0, 2));
    s->request.instance_id = "nobody";
    refused(s->request, "instance nobody not found");
    const std::string too_long(kMaxHashBytes + 1, 'x');
    const std::vector<std::string_view> long_hash = {too_long, too_long};
    s = saving(w, hashes, ids(0, 2));
    s->layers[0].hashes = long_hash;
    refused(s->request, "65 bytes");
    s = saving(w, hashes, ids(0, 2));
    s->request.wait_event = "not an event";
    refused(s->request, "event");
    EXPECT_EQ(engine_->stats().pool_used_bytes, 0U);
    EXPECT_EQ(engine_->stats().saves_in_flight, 0U);
    EXPECT_EQ(engine_->stats().incomplete_blocks, 0U);
}

TEST_F(SaveTest, APageFirstSaveNamesAllLayers) {
    ToyWorker w("i", 0, 0, 1, 1, 8, toy::layers(3, 512));
    w.registration.page_first = true;
    enroll(w);
    Hashes hashes(0, 2);
    const auto part = save(w, hashes, ids(0, 2), {"layer.00", "layer.02"});
    ASSERT_FALSE(part);
    EXPECT_THAT(part.error().message, ::testing::HasSubstr("page-first save must cover all 3 layers of shard 0"));
}

TEST_F(SaveTest, ADeadlineEndsASaveThatCannotStart) {
    ToyWorker w("i", 0, 0, 1, 1, 8, toy::layers(2, 512));
    enroll(w);
    Hashes hashes(0, 2);
    Hold hold(*fabric_);
    auto s = saving(w, hashes, ids(0, 2));
    s->request.local_event = hold.event();
    s->request.deadline = std::chrono::steady_clock::now() + 30ms;
    const auto late = engine_->save(s->request);
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().code, Code::kDeadlineExceeded);
    EXPECT_EQ(engine_->stats().pool_used_bytes, 0U) << "the claim and its pages are back";
    hold.release();
    fill(w, hashes);
    EXPECT_EQ(query("i", hashes.views())->hit_blocks, 2U);
}

TEST_F(SaveTest, ACanceledSaveMakesNoBlockAndCanBeTriedAgain) {
    ToyWorker w("i", 0, 0, 1, 1, 8, toy::layers(2, 512));
    enroll(w);
    Hashes hashes(0, 2);
    w.write(hashes, ids(0, 2));
    Hold hold(*fabric_);
    auto s = saving(w, hashes, ids(0, 2));
    s->request.local_event = hold.event();
    std::promise<Result<SaveOutcome>> done;
    const SaveId id = engine_->save_async(s->request, [&](Result<SaveOutcome> r) { done.set_value(std::move(r)); });
    ASSERT_NE(id, kNoSave);
    EXPECT_TRUE(engine_->cancel_save(id));
    const auto canceled = done.get_future().get();
    ASSERT_FALSE(canceled);
    EXPECT_EQ(canceled.error().code, Code::kCanceled);
    EXPECT_EQ(engine_->cancel_save(id).error().code, Code::kNotFound) << "it is over";
    EXPECT_EQ(query("i", hashes.views())->hit_blocks, 0U);
    const EngineStats stats = engine_->stats();
    EXPECT_EQ(stats.incomplete_blocks, 0U);
    EXPECT_EQ(stats.pool_used_bytes, 0U);
    EXPECT_EQ(stats.canceled, 1U);
    EXPECT_EQ(stats.saves_in_flight, 0U);
    hold.release();
    fill(w, hashes);
    w.wipe();
    ASSERT_TRUE(load(w, lease_all("i", hashes), ids(4, 2)));
    EXPECT_EQ(w.difference(hashes, ids(4, 2)), "");
}

TEST_F(SaveTest, OnlyASaveUnderWayCanBeCanceled) {
    ToyWorker w("i", 0, 0, 1, 1, 8, toy::layers(2, 512));
    enroll(w);
    Hashes hashes(0, 2);
    w.write(hashes, ids(0, 2));
    std::promise<Result<SaveOutcome>> done;
    const auto s = saving(w, hashes, ids(0, 2));
    const SaveId id = engine_->save_async(s->request, [&](Result<SaveOutcome> r) { done.set_value(std::move(r)); });
    ASSERT_TRUE(done.get_future().get());
    EXPECT_EQ(engine_->cancel_save(id).error().code, Code::kNotFound);
    EXPECT_EQ(engine_->cancel_save(kNoSave).error().code, Code::kNotFound);
    EXPECT_EQ(query("i", hashes.views())->hit_blocks, 2U);
}

TEST_F(SaveTest, AQueueThatIsFullIsAnAnswer) {
    EngineOptions options = small();
    options.max_queued_transfers = 2;
    open(options);
    ToyWorker w("i", 0, 0, 1, 1, 4096, toy::layers(1, 64));
    enroll(w);
    Hold hold(*fabric_);
    std::atomic<int> ended{0}, good{0}, full{0};
    std::vector<std::unique_ptr<Hashes>> hashes;
    std::vector<std::unique_ptr<Saving>> requests;
    for (std::uint32_t i = 0; i < 2000 && full == 0; ++i) {
        hashes.push_back(std::make_unique<Hashes>(i, 1));
        requests.push_back(saving(w, *hashes.back(), {i}));
        requests.back()->request.local_event = hold.event();
        engine_->save_async(requests.back()->request, [&](Result<SaveOutcome> r) {
            good += r ? 1 : 0;
            full += !r && r.error().code == Code::kQueueFull ? 1 : 0;
            ++ended;
        });
    }
    EXPECT_EQ(full, 1) << "answered at once";
    EXPECT_EQ(engine_->stats().queue_full, 1U);
    hold.release();
    while (ended < static_cast<int>(requests.size())) std::this_thread::sleep_for(1ms);
    EXPECT_EQ(good, static_cast<int>(requests.size()) - 1) << "what was accepted is done";
    const auto refused = saving(w, *hashes.back(), {static_cast<std::uint32_t>(requests.size() - 1)});
    EXPECT_TRUE(engine_->save(refused->request)) << "the refused one can be tried again";
    EXPECT_EQ(engine_->stats().saves_in_flight, 0U);
}

}  // namespace
}  // namespace pegaflow

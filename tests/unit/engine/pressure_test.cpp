// SPDX-License-Identifier: Apache-2.0
// Small pools, many clients: what is evicted, what is not, and that every byte loaded is the one that was saved.
#include <unistd.h>

#include <random>

#include "toy_worker.hpp"

namespace pegaflow {
namespace {

using namespace std::chrono_literals;
using toy::Hashes;
using toy::Hold;
using toy::ids;
using toy::ToyWorker;

class PressureTest : public toy::EngineTest {};

TEST_F(PressureTest, ALongRunOfSavesNeverFindsTheOwnBacklogInItsWay) {
    open(small(std::uint64_t{1} << 20));  // 64 pages of 16 KiB
    ToyWorker w("i", 0, 0, 1, 1, 32, toy::layers(2, 8192));
    enroll(w);
    for (std::uint32_t round = 0; round < 200; ++round) {
        Hashes hashes(round * 32, 32);
        const auto request = saving(w, hashes, ids(0, 32));
        const auto saved = engine_->save(request->request);  // no flush: digests are behind
        ASSERT_TRUE(saved) << saved.error().message;
        ASSERT_EQ(saved->saved_blocks, 32U);
    }
    const EngineStats stats = engine_->stats();
    EXPECT_EQ(stats.pool_alloc_failures, 0U);
    EXPECT_EQ(stats.resident_blocks, 64U);
    EXPECT_EQ(stats.evictions, 200U * 32 - 64);
    EXPECT_EQ(stats.evicted_bytes, stats.evictions * 16384);
    EXPECT_EQ(stats.pool_used_bytes, stats.pool_capacity_bytes);
}

TEST_F(PressureTest, BlocksInManySlicesOfThePoolComeBackWithTheirLayersInOrder) {
    EngineOptions options = small(std::uint64_t{1} << 20);
    options.pool_slice_bytes = std::uint64_t{48} << 10;  // three pages
    open(options);
    ToyWorker w("i", 0, 0, 1, 1, 64, toy::layers(4, 4096));
    enroll(w);
    Hashes early(0, 3), more(100, 45);
    fill(w, early);  // while the pool still grows
    for (int i = 0; i < 4000 && engine_->stats().pool_ready_bytes != (1 << 20); ++i) std::this_thread::sleep_for(5ms);
    EXPECT_EQ(engine_->stats().pool_ready_bytes, std::uint64_t{1} << 20);
    fill(w, more);
    w.wipe();
    std::vector<std::size_t> seen;
    const auto loads = loading(w, lease_all("i", more), ids(5, 45));
    std::promise<Result<void>> done;
    ASSERT_TRUE(engine_->load_async(loads->request, {[&](std::size_t landed) { seen.push_back(landed); },
                                                     [&](Result<void> r) { done.set_value(std::move(r)); }}));
    ASSERT_TRUE(done.get_future().get());
    EXPECT_EQ(w.difference(more, ids(5, 45)), "");
    EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
    EXPECT_EQ(seen.back(), 4U);
    ASSERT_TRUE(load(w, lease_all("i", early), ids(60, 3)));
    EXPECT_EQ(w.difference(early, ids(60, 3)), "");
    EXPECT_EQ(engine_->stats().load_bytes, 48 * w.block_bytes());
}

TEST_F(PressureTest, TheBlocksUsedLastStay) {
    open(small(std::uint64_t{256} << 10));  // 16 pages
    ToyWorker w("i", 0, 0, 1, 1, 32, toy::layers(2, 8192));
    enroll(w);
    Hashes old(0, 8), fresh(100, 8), more(200, 8);
    fill(w, old);
    fill(w, fresh);
    const LeaseId lease = lease_all("i", old);  // a use
    ASSERT_TRUE(engine_->release(lease));
    fill(w, more);
    EXPECT_EQ(query("i", old.views())->hit_blocks, 8U);
    EXPECT_EQ(query("i", fresh.views())->hit_blocks, 0U);
}

TEST_F(PressureTest, ALongSaveEvictsNoneOfItsOwnBlocks) {
    open(small(std::uint64_t{2} << 20));  // 512 pages of 4 KiB
    ToyWorker w("i", 0, 0, 1, 1, 512, toy::layers(1, 4096));
    enroll(w);
    Hashes start(0, 128), others(1000, 384), whole(0, 400);
    fill(w, start);
    fill(w, others);  // the pool is full, and `start` is what should go first
    const auto saved = save(w, whole, ids(0, 400));
    ASSERT_TRUE(saved) << saved.error().message;
    EXPECT_EQ(saved->saved_blocks, 272U);
    EXPECT_EQ(saved->duplicate_blocks, 128U);
    EXPECT_EQ(query("i", whole.views())->hit_blocks, 400U);
    EXPECT_EQ(engine_->stats().evictions, 272U);
}

TEST_F(PressureTest, APoolFullOfLeasesSaysSoAndRecovers) {
    open(small(std::uint64_t{256} << 10));
    ToyWorker w("i", 0, 0, 1, 1, 32, toy::layers(2, 8192));
    enroll(w);
    Hashes pinned(0, 16), next(100, 4);
    fill(w, pinned);
    const LeaseId lease = lease_all("i", pinned);
    const auto full = save(w, next, ids(20, 4));
    ASSERT_FALSE(full);
    EXPECT_EQ(full.error().code, Code::kNoMemory);
    EXPECT_THAT(full.error().message, ::testing::HasSubstr("pinned pool exhausted while allocating"));
    EXPECT_EQ(engine_->stats().pool_alloc_failures, 1U);
    EXPECT_EQ(engine_->stats().save_failures, 1U);
    w.wipe();
    ASSERT_TRUE(load(w, lease, ids(0, 16)));
    EXPECT_EQ(w.difference(pinned, ids(0, 16)), "");
    EXPECT_TRUE(save(w, next, ids(20, 4)));
}

TEST_F(PressureTest, ALeaseThatExpiresLetsItsBlocksGo) {
    open(small(std::uint64_t{256} << 10));
    ToyWorker w("i", 0, 0, 1, 1, 32, toy::layers(2, 8192));
    enroll(w);
    Hashes pinned(0, 16), next(100, 16);
    fill(w, pinned);
    QueryRequest request;
    request.instance_id = "i";
    request.hashes = pinned.views();
    request.request_id = "r";
    request.lease_time = 1h;
    const auto found = engine_->query(request);
    ASSERT_TRUE(found && found->lease);
    EXPECT_FALSE(save(w, next, ids(0, 16)));
    EXPECT_TRUE(engine_->renew(*found->lease, 1ms));
    for (int i = 0; i < 4000 && engine_->stats().leases_expired == 0; ++i) std::this_thread::sleep_for(5ms);
    EXPECT_EQ(engine_->stats().leases_expired, 1U);
    EXPECT_EQ(engine_->stats().leases, 0U);
    EXPECT_EQ(engine_->renew(*found->lease).error().code, Code::kNotFound);
    EXPECT_TRUE(save(w, next, ids(0, 16)));
}

TEST_F(PressureTest, LayersInOneAllocationAreOpenedOnceAndKeptApart) {
    open();
    constexpr std::uint64_t kBlocks = 16, kBytes = 512;
    std::vector<std::uint8_t> tensor(2 * kBlocks * kBytes);  // layer after layer in each block
    WorkerRegistration r;
    r.instance_id = "i";
    for (std::uint64_t i = 0; i < 2; ++i) {
        LayerRegistration layer;
        layer.name = "layer." + std::to_string(i);
        layer.memory.address = tensor.data();
        layer.memory.offset = i * kBytes;
        layer.memory.length = tensor.size() - i * kBytes;
        layer.num_blocks = kBlocks;
        layer.bytes_per_block = kBytes;
        layer.block_stride_bytes = 2 * kBytes;
        r.layers.push_back(layer);
    }
    ASSERT_TRUE(engine_->register_worker(r));
    for (std::size_t i = 0; i < tensor.size(); ++i) tensor[i] = static_cast<std::uint8_t>(i / kBytes + i);
    const std::vector<std::uint8_t> original = tensor;
    Hashes hashes(0, 4);
    const auto from = ids(2, 4), to = ids(8, 4);
    const std::vector<SaveLayer> layers = {{"layer.0", from, hashes.views()}, {"layer.1", from, hashes.views()}};
    SaveRequest request;
    request.instance_id = "i";
    request.layers = layers;
    ASSERT_TRUE(engine_->save(request));
    const std::vector<std::string_view> names = {"layer.1", "layer.0"};
    const std::vector<std::span<const std::string_view>> groups = {names};
    const std::vector<std::span<const std::uint32_t>> targets = {to};
    const std::vector<LeaseLoad> loads = {{lease_all("i", hashes), targets}};
    LoadRequest back;
    back.instance_id = "i";
    back.layer_groups = groups;
    back.loads = loads;
    ASSERT_TRUE(engine_->load(back));
    for (std::size_t at = 0; at < tensor.size(); ++at) {
        const std::size_t block = at / (2 * kBytes);
        const std::size_t source = block >= 8 && block < 12 ? at - 6 * 2 * kBytes : at;
        ASSERT_EQ(tensor[at], original[source]) << at;
    }
}

TEST_F(PressureTest, CloseEndsWhatWaitsAndRefusesTheRest) {
    open();
    ToyWorker w("i", 0, 0, 1, 1, 32, toy::layers(2, 512));
    enroll(w);
    Hashes hashes(0, 4);
    fill(w, hashes);
    Hold never(*fabric_);
    auto held = loading(w, lease_all("i", hashes), ids(8, 4));
    held->request.local_event = never.event();
    std::promise<Result<void>> done;
    ASSERT_TRUE(engine_->load_async(held->request, {nullptr, [&](Result<void> r) { done.set_value(std::move(r)); }}));
    engine_->close(std::chrono::steady_clock::now() + 20ms);
    EXPECT_EQ(done.get_future().get().error().code, Code::kCanceled);
    EXPECT_EQ(engine_->save(saving(w, hashes, ids(0, 4))->request).error().code, Code::kCanceled);
    EXPECT_EQ(query("i", hashes.views()).error().code, Code::kCanceled);
    EXPECT_EQ(engine_->register_worker(w.registration).error().code, Code::kCanceled);
    EXPECT_EQ(engine_->stats().resident_blocks, 0U);
    engine_->close();
}

TEST_F(PressureTest, TheObserverHearsOfEveryCopy) {
    std::atomic<std::uint64_t> saved{0}, loaded{0}, failed{0};
    EngineObserver observer;
    observer.on_save = [&](double seconds, std::uint64_t bytes) { saved += seconds >= 0 ? bytes : 0; };
    observer.on_load = [&](double, std::uint64_t bytes, bool ok) { (ok ? loaded : failed) += ok ? bytes : 1; };
    open(small(), observer);
    ToyWorker w("i", 0, 0, 1, 1, 32, toy::layers(2, 512));
    enroll(w);
    Hashes hashes(0, 4);
    fill(w, hashes);
    ASSERT_TRUE(load(w, lease_all("i", hashes), ids(8, 4)));
    Hold hold(*fabric_);
    auto late = loading(w, lease_all("i", hashes), ids(8, 4));
    late->request.local_event = hold.event();
    late->request.deadline = std::chrono::steady_clock::now();
    EXPECT_FALSE(engine_->load(late->request));
    EXPECT_EQ(saved, 4 * w.block_bytes());
    EXPECT_EQ(loaded, 4 * w.block_bytes());
    EXPECT_EQ(failed, 1U);
}

TEST_F(PressureTest, OptionsThatCannotBeAreRefused) {
    const auto refused = [&](EngineOptions options) { return Engine::create(std::move(options), *fabric_).error().code; };
    EngineOptions o = small();
    o.max_queued_transfers = 0;
    EXPECT_EQ(refused(o), Code::kInvalid);
    o = small();
    o.eviction_policy = "no-such-policy";
    EXPECT_EQ(refused(o), Code::kNotFound);
    o = small();
    o.admission_policy = "no-such-policy";
    EXPECT_EQ(refused(o), Code::kNotFound);
    EXPECT_EQ(refused(small(1)), Code::kInvalid);
    o = small();
    o.pool_file = "/nowhere/pool";
    EXPECT_EQ(refused(o), Code::kNoMemory);
    o = small();
    o.lease_time = 0s;
    EXPECT_EQ(refused(o), Code::kInvalid);
}

TEST_F(PressureTest, APoolFileBelongsToOneEngine) {
    EngineOptions o = small();
    o.pool_file = fmt::format("{}/pegaflow_pool_{}", ::testing::TempDir(), ::getpid());
    open(o);
    const auto second = Engine::create(o, *fabric_);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, Code::kExists);
    EXPECT_THAT(second.error().message, ::testing::HasSubstr(o.pool_file));
    engine_->close();
    EXPECT_TRUE(Engine::create(o, *fabric_)) << "the first has let go of it";
    ::unlink(o.pool_file.c_str());
}

// Ranks of several replicas save, look up, load, cancel and vanish at once, in a pool that holds a fraction of it all.
TEST_F(PressureTest, ManyClientsAtOnceNeverSeeAWrongByte) {
    EngineOptions options = small(std::uint64_t{1} << 20);
    options.pool_slice_bytes = std::uint64_t{96} << 10;
    open(options);
    std::atomic<std::uint64_t> loaded_blocks{0}, wrong{0}, unexpected_errors{0};
    const auto expected = [](Code code) {
        return code == Code::kNoMemory || code == Code::kQueueFull || code == Code::kCanceled || code == Code::kNotFound;
    };
    const auto client = [&](int c) {
        std::mt19937 random(static_cast<unsigned>(c));
        const std::string id = "i" + std::to_string(c);
        for (int life = 0; life < 3; ++life) {
            ToyWorker a(id, 0, 0, 2, 2, 32, toy::layers(3, 2048, 2, true));
            ToyWorker b(id, 1, 1, 2, 2, 32, toy::layers(3, 2048, 2, true));
            if (!engine_->register_worker(a.registration) || !engine_->register_worker(b.registration)) ++unexpected_errors;
            for (int round = 0; round < 40; ++round) {
                Hashes hashes(random() % 40, 1 + random() % 6);
                for (ToyWorker* w : {&a, &b}) {
                    w->write(hashes, ids(0, hashes.size()));
                    const auto saved = engine_->save(saving(*w, hashes, ids(0, hashes.size()))->request);
                    if (!saved && !expected(saved.error().code)) ++unexpected_errors;
                }
                const auto found = query(id, hashes.views());
                if (!found || !found->lease) continue;
                const std::size_t hits = found->hit_blocks;
                if (random() % 8 == 0) {
                    if (!engine_->release(*found->lease)) ++unexpected_errors;
                    continue;
                }
                for (ToyWorker* w : {&a, &b}) {
                    const auto request = loading(*w, *found->lease, ids(16, hits));
                    std::promise<Result<void>> done;
                    const auto started =
                        engine_->load_async(request->request, {nullptr, [&](Result<void> r) { done.set_value(std::move(r)); }});
                    if (!started) {
                        unexpected_errors += expected(started.error().code) ? 0 : 1;
                        continue;
                    }
                    if (random() % 8 == 0) (void)engine_->cancel_load(*started);
                    const auto result = done.get_future().get();
                    if (!result) {
                        unexpected_errors += expected(result.error().code) ? 0 : 1;
                        continue;
                    }
                    loaded_blocks += hits;
                    for (std::size_t i = 0; i < hits; ++i) {
                        Hashes one(hashes.number(i), 1);
                        if (!w->difference(one, {static_cast<std::uint32_t>(16 + i)}).empty()) ++wrong;
                    }
                }
            }
            if (!engine_->unregister_instance(id)) ++unexpected_errors;
        }
    };
    std::vector<std::thread> clients;
    for (int c = 0; c < 4; ++c) clients.emplace_back(client, c);
    std::atomic<bool> stop{false};
    std::thread janitor([&] {
        while (!stop) {
            std::this_thread::sleep_for(20ms);
            (void)engine_->cleanup_memory();
            (void)engine_->stats();
        }
    });
    for (std::thread& thread : clients) thread.join();
    stop = true;
    janitor.join();
    EXPECT_EQ(wrong, 0U);
    EXPECT_EQ(unexpected_errors, 0U);
    EXPECT_GT(loaded_blocks, 100U);
    ASSERT_TRUE(engine_->flush());
    engine_->cleanup_memory();
    const EngineStats stats = engine_->stats();
    EXPECT_EQ(stats.pool_used_bytes, 0U) << "every page came back";
    EXPECT_EQ(stats.leases, 0U);
    EXPECT_EQ(stats.saves_in_flight + stats.loads_in_flight, 0U);
    EXPECT_EQ(stats.digest_mismatches, 0U);
}

}  // namespace
}  // namespace pegaflow

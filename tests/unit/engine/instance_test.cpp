// SPDX-License-Identifier: Apache-2.0
// Registration: who may join an instance, when it seals, and that it goes without pulling memory from under a copy.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <csignal>

#include "toy_worker.hpp"

namespace pegaflow {
namespace {

// A shared object that nobody else can open before `release`: whoever tries waits.
class StuckObject {
public:
    explicit StuckObject(std::size_t length) : name_(fmt::format("pegaflow-stuck-{}", ::getpid())) {
        before_ = ::signal(SIGIO, SIG_IGN);  // which tells that somebody waits
        fd_ = ::shm_open(("/" + name_).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (::ftruncate(fd_, static_cast<off_t>(length)) == 0) held_ = ::fcntl(fd_, F_SETLEASE, F_WRLCK) == 0;
    }
    StuckObject(const StuckObject&) = delete;
    StuckObject& operator=(const StuckObject&) = delete;
    ~StuckObject() {
        release();
        ::shm_unlink(("/" + name_).c_str());
        ::close(fd_);
        ::signal(SIGIO, before_);
    }
    const std::string& name() const { return name_; }
    bool held() const { return held_; }  // false where the system cannot do that
    bool awaited() const { return ::fcntl(fd_, F_GETLEASE) != F_WRLCK; }
    void release() { ::fcntl(fd_, F_SETLEASE, F_UNLCK); }

private:
    std::string name_;
    int fd_ = -1;
    bool held_ = false;
    void (*before_)(int) = nullptr;
};

using namespace std::chrono_literals;
using toy::Hashes;
using toy::Hold;
using toy::ids;
using toy::ToyLayer;
using toy::ToyWorker;

class InstanceTest : public toy::EngineTest {
protected:
    void SetUp() override {
        EngineTest::SetUp();
        open();
    }
    Error refused(const WorkerRegistration& registration) {
        const auto result = engine_->register_worker(registration);
        EXPECT_FALSE(result);
        return result ? Error{} : result.error();
    }
};

TEST_F(InstanceTest, SealsWhenTheLastWorkerHasCome) {
    ToyWorker a("i", 0, 0, 2, 2, 8, toy::layers(2, 256));
    ToyWorker b("i", 1, 1, 2, 2, 8, toy::layers(2, 256));
    enroll(a);
    ASSERT_EQ(engine_->instances().size(), 1U);
    EXPECT_FALSE(engine_->instances()[0].sealed);
    EXPECT_EQ(engine_->instances()[0].layout_fingerprint, "");
    enroll(b);
    const InstanceInfo info = engine_->instances()[0];
    EXPECT_TRUE(info.sealed);
    EXPECT_EQ(info.instance_id, "i");
    EXPECT_EQ(info.name_space, "toy");
    EXPECT_EQ(info.tp_size, 2U);
    EXPECT_EQ(info.layout_fingerprint.size(), 64U);
    ASSERT_EQ(info.workers.size(), 2U);
    EXPECT_EQ(info.workers[1].tp_rank, 1U);
    EXPECT_EQ(info.workers[1].device, "host:0");
    EXPECT_EQ(info.workers[1].region_bytes, 2U * 8 * 256);
    EXPECT_EQ(engine_->stats().instances, 1U);
    EXPECT_EQ(engine_->stats().workers, 2U);
}

TEST_F(InstanceTest, RefusesNumbersThatCannotBe) {
    ToyWorker w("i", 0, 0, 1, 1, 8, toy::layers(1, 256));
    WorkerRegistration r = w.registration;
    r.instance_id = "";
    EXPECT_EQ(refused(r).code, Code::kInvalid);
    r = w.registration;
    r.tp_size = 0;
    EXPECT_EQ(refused(r).code, Code::kInvalid);
    r = w.registration;
    r.world_size = 0;
    EXPECT_EQ(refused(r).code, Code::kInvalid);
    r = w.registration;
    r.tp_rank = 1;
    EXPECT_THAT(refused(r).message, ::testing::HasSubstr("tp_rank 1 must be less than tp_size 1"));
    r = w.registration;
    r.device_id = -1;
    EXPECT_EQ(refused(r).code, Code::kInvalid);
    r = w.registration;
    r.layers.clear();
    EXPECT_THAT(refused(r).message, ::testing::HasSubstr("registered no KV cache layers"));
    r = w.registration;
    r.layers.push_back(r.layers[0]);
    EXPECT_EQ(refused(r).code, Code::kInvalid);
    r = w.registration;
    r.layers[0].memory.address = nullptr;
    EXPECT_EQ(refused(r).code, Code::kInvalid);
    r = w.registration;
    r.layers[0].memory.source = PEGA_SOURCE_SHM;
    r.layers[0].memory.handle = "pegaflow-there-is-no-such-object";
    const Error gone = refused(r);
    EXPECT_EQ(gone.code, Code::kRegionLost);
    EXPECT_THAT(gone.message, ::testing::HasSubstr("layer.00"));
    r = w.registration;
    r.layers[0].memory.kind = PEGA_MEMORY_GPU;
    r.layers[0].memory.device_uuid = "GPU-that-is-not-there";
    EXPECT_EQ(refused(r).code, Code::kNotFound);
    EXPECT_TRUE(engine_->instances().empty()) << "a refused first worker leaves no instance";
    enroll(w);
}

TEST_F(InstanceTest, RefusesAnotherTopologyADeviceTwiceAndLateComers) {
    ToyWorker a("i", 0, 0, 2, 2, 8, toy::layers(1, 256));
    ToyWorker b("i", 1, 1, 2, 2, 8, toy::layers(1, 256));
    enroll(a);
    EXPECT_EQ(refused(a.registration).code, Code::kExists);
    WorkerRegistration r = b.registration;
    r.world_size = 4;
    Error mismatch = refused(r);
    EXPECT_EQ(mismatch.code, Code::kNotReady);
    EXPECT_THAT(mismatch.message,
                ::testing::HasSubstr("topology mismatch: instance i exists with tp=2, world=2, page_first=false"));
    r = b.registration;
    r.page_first = true;
    EXPECT_EQ(refused(r).code, Code::kNotReady);
    r = b.registration;
    r.dtype = "float8";
    mismatch = refused(r);
    EXPECT_EQ(mismatch.code, Code::kNotReady);
    EXPECT_THAT(mismatch.message,
                ::testing::HasSubstr("topology mismatch: instance i exists with dtype \"bfloat16\"; requested \"float8\""));
    enroll(b);
    r = b.registration;
    r.device_id = 2;
    EXPECT_THAT(refused(r).message, ::testing::HasSubstr("already fully registered (2 workers); device 2 cannot join"));
}

TEST_F(InstanceTest, AFailedSealCostsOnlyTheLastWorker) {
    ToyWorker a("i", 0, 0, 2, 2, 8, toy::layers(2, 256));
    ToyWorker wrong("i", 1, 1, 2, 2, 8, toy::layers(2, 128));
    ToyWorker right("i", 1, 1, 2, 2, 8, toy::layers(2, 256));
    enroll(a);
    EXPECT_THAT(refused(wrong.registration).message, ::testing::HasSubstr("inconsistent geometry"));
    ASSERT_EQ(engine_->instances().size(), 1U);
    EXPECT_FALSE(engine_->instances()[0].sealed);
    EXPECT_EQ(engine_->instances()[0].workers.size(), 1U);
    enroll(right);
    EXPECT_TRUE(engine_->instances()[0].sealed);
}

TEST_F(InstanceTest, WorkBeforeSealingIsRefusedAndAQueryFindsNothing) {
    ToyWorker a("i", 0, 0, 2, 2, 8, toy::layers(1, 256));
    enroll(a);
    Hashes hashes(0, 2);
    const auto saved = save(a, hashes, ids(0, 2));
    ASSERT_FALSE(saved);
    EXPECT_EQ(saved.error().code, Code::kInvalid);
    EXPECT_THAT(saved.error().message, ::testing::HasSubstr("registration incomplete: 1/2 workers registered"));
    EXPECT_EQ(query("i", hashes.views())->hit_blocks, 0U);
    EXPECT_EQ(query("i", hashes.views(), 1).error().code, Code::kInvalid);
    EXPECT_EQ(query("nobody", hashes.views()).error().code, Code::kNotFound);
    EXPECT_EQ(engine_->unregister_instance("nobody").error().code, Code::kNotFound);
}

TEST_F(InstanceTest, AnInstanceThatLeavesAndComesBackFindsItsBlocks) {
    Hashes hashes(0, 4);
    {
        ToyWorker w("i", 0, 0, 1, 1, 8, toy::layers(2, 256));
        enroll(w);
        fill(w, hashes);
        const LeaseId lease = lease_all("i", hashes);
        ASSERT_TRUE(engine_->unregister_instance("i"));
        EXPECT_EQ(engine_->release(lease).error().code, Code::kNotFound) << "leases go with their instance";
    }
    EXPECT_TRUE(engine_->instances().empty());
    ToyWorker again("i2", 0, 0, 1, 1, 8, toy::layers(2, 256));
    enroll(again);
    ASSERT_TRUE(load(again, lease_all("i2", hashes), ids(2, 4)));
    EXPECT_EQ(again.difference(hashes, ids(2, 4)), "");
}

TEST_F(InstanceTest, TwoLayoutsNeverShareABlock) {
    Hashes hashes(0, 2);
    ToyWorker bf16("bf16", 0, 0, 1, 1, 8, toy::layers(2, 256));
    ToyWorker fp8("fp8", 0, 0, 1, 1, 8, toy::layers(2, 256));
    fp8.registration.dtype = "float8";
    ToyWorker other_space("other", 0, 0, 1, 1, 8, toy::layers(2, 256));
    other_space.registration.name_space = "other";
    enroll(bf16);
    enroll(fp8);
    enroll(other_space);
    fill(bf16, hashes);
    EXPECT_EQ(query("bf16", hashes.views())->hit_blocks, 2U);
    EXPECT_EQ(query("fp8", hashes.views())->hit_blocks, 0U);
    EXPECT_EQ(query("other", hashes.views())->hit_blocks, 0U);
}

TEST_F(InstanceTest, UnregisterWaitsForTheCopyUnderWay) {
    ToyWorker w("i", 0, 0, 1, 1, 8, toy::layers(2, 256));
    enroll(w);
    Hashes hashes(0, 2);
    w.write(hashes, ids(0, 2));
    Hold hold(*fabric_);
    auto request = saving(w, hashes, ids(0, 2));
    request->request.local_event = hold.event();
    std::promise<Result<SaveOutcome>> done;
    engine_->save_async(request->request, [&](Result<SaveOutcome> r) { done.set_value(std::move(r)); });
    auto gone = std::async(std::launch::async, [&] { return engine_->unregister_instance("i"); });
    for (int i = 0; i < 20000 && !engine_->instances().empty(); ++i) std::this_thread::sleep_for(1ms);  // until it has begun
    ASSERT_TRUE(engine_->instances().empty());
    EXPECT_EQ(gone.wait_for(30ms), std::future_status::timeout);
    Hashes more(10, 1);
    EXPECT_FALSE(save(w, more, ids(3, 1))) << "nothing new starts";
    hold.release();
    EXPECT_TRUE(gone.get());
    EXPECT_TRUE(done.get_future().get());
    EXPECT_EQ(engine_->stats().saves_in_flight, 0U);
}

TEST_F(InstanceTest, WhoComesUnderTheNameOfOneThatLeavesKeepsHisLeases) {
    ToyWorker before("i", 0, 0, 1, 1, 8, toy::layers(2, 256)), after("i", 0, 0, 1, 1, 8, toy::layers(2, 256));
    enroll(before);
    Hashes hashes(0, 2), held(10, 1);
    fill(before, hashes);
    const LeaseId old = lease_all("i", hashes);
    Hold hold(*fabric_);
    auto request = saving(before, held, {4});
    request->request.local_event = hold.event();
    std::promise<Result<SaveOutcome>> done;
    engine_->save_async(request->request, [&](Result<SaveOutcome> r) { done.set_value(std::move(r)); });
    auto gone = std::async(std::launch::async, [&] { return engine_->unregister_instance("i"); });
    while (!engine_->instances().empty()) std::this_thread::sleep_for(1ms);
    enroll(after);
    const LeaseId fresh = lease_all("i", hashes);
    EXPECT_EQ(load(after, old, ids(0, 2)).error().code, Code::kNotFound) << "it was the other one's";
    hold.release();
    EXPECT_TRUE(gone.get());
    done.get_future().wait();
    const auto loaded = load(after, fresh, ids(0, 2));
    ASSERT_TRUE(loaded) << loaded.error().message;
    EXPECT_EQ(after.difference(hashes, ids(0, 2)), "");
    EXPECT_EQ(engine_->stats().leases, 0U);
}

TEST_F(InstanceTest, UnregisterDoesNotWaitForAClientThatDied) {
    ToyWorker w("i", 0, 0, 1, 1, 8, toy::layers(2, 256));
    enroll(w);
    Hashes hashes(0, 2);
    Hold never(*fabric_);
    auto request = saving(w, hashes, ids(0, 2));
    request->request.local_event = never.event();
    std::promise<Result<SaveOutcome>> done;
    engine_->save_async(request->request, [&](Result<SaveOutcome> r) { done.set_value(std::move(r)); });
    EXPECT_TRUE(engine_->unregister_instance("i"));
    EXPECT_EQ(done.get_future().get().error().code, Code::kCanceled);
    EXPECT_EQ(engine_->stats().pool_used_bytes, 0U);
}

TEST_F(InstanceTest, PartlyFilledBlocksGoWithTheirInstance) {
    ToyWorker a("i", 0, 0, 2, 2, 8, toy::layers(1, 256));
    ToyWorker b("i", 1, 1, 2, 2, 8, toy::layers(1, 256));
    enroll(a);
    enroll(b);
    Hashes hashes(0, 4);
    ASSERT_TRUE(save(a, hashes, ids(0, 4)));
    EXPECT_EQ(engine_->stats().incomplete_blocks, 4U);
    EXPECT_GT(engine_->stats().pool_used_bytes, 0U);
    ASSERT_TRUE(engine_->unregister_instance("i"));
    EXPECT_EQ(engine_->stats().incomplete_blocks, 0U);
    EXPECT_EQ(engine_->stats().pool_used_bytes, 0U);
    EXPECT_EQ(engine_->stats().incomplete_dropped, 4U);
}

TEST_F(InstanceTest, ARegistrationThatHangsHoldsUpNobodyElse) {
    ToyWorker w("stuck", 0, 0, 1, 1, 8, toy::layers(1, 256)), other("other", 0, 0, 1, 1, 8, toy::layers(1, 256));
    StuckObject memory(8 * 256);
    if (!memory.held()) GTEST_SKIP() << "no file here can be kept from being opened";
    w.registration.layers[0].memory.source = PEGA_SOURCE_SHM;
    w.registration.layers[0].memory.handle = memory.name();
    w.registration.layers[0].memory.address = nullptr;
    auto registered = std::async(std::launch::async, [&] { return engine_->register_worker(w.registration); });
    while (!memory.awaited()) std::this_thread::sleep_for(1ms);
    const auto instances = engine_->instances();
    const EngineStats stats = engine_->stats();
    const EngineHealth health = engine_->health();
    enroll(other);
    Hashes hashes(0, 2);
    fill(other, hashes);
    EXPECT_EQ(registered.wait_for(0s), std::future_status::timeout) << "all of that came while it waited";
    ASSERT_EQ(instances.size(), 1U);
    EXPECT_EQ(instances[0].instance_id, "stuck");
    EXPECT_FALSE(instances[0].sealed);
    EXPECT_EQ(stats.instances, 1U);
    EXPECT_TRUE(health.problems.empty());
    memory.release();
    const auto result = registered.get();
    EXPECT_TRUE(result) << result.error().message;
}

TEST_F(InstanceTest, RegistrationsQueriesAndStatisticsMayRace) {
    std::atomic<bool> stop{false};
    std::thread watcher([&] {
        Hashes hashes(0, 4);
        while (!stop) {
            (void)engine_->stats();
            (void)engine_->instances();
            for (int i = 0; i < 4; ++i) (void)query("i" + std::to_string(i), hashes.views());
        }
    });
    std::vector<std::thread> clients;
    std::atomic<int> failures{0};
    for (int c = 0; c < 4; ++c) {
        clients.emplace_back([&, c] {
            for (int round = 0; round < 30; ++round) {
                const std::string id = "i" + std::to_string(c);
                ToyWorker a(id, 0, 0, 2, 2, 2, toy::layers(1, 64));
                ToyWorker b(id, 1, 1, 2, 2, 2, toy::layers(1, 64));
                if (!engine_->register_worker(a.registration)) ++failures;
                if (engine_->register_worker(a.registration)) ++failures;
                if (!engine_->register_worker(b.registration)) ++failures;
                if (!engine_->unregister_instance(id)) ++failures;
            }
        });
    }
    for (std::thread& client : clients) client.join();
    stop = true;
    watcher.join();
    EXPECT_EQ(failures, 0);
    EXPECT_TRUE(engine_->instances().empty());
}

}  // namespace
}  // namespace pegaflow

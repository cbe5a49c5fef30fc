// SPDX-License-Identifier: Apache-2.0
// Lease times that cannot be, or are for ever, and more leases than an instance may have.
#include "toy_worker.hpp"

namespace pegaflow {
namespace {

using namespace std::chrono_literals;
using toy::Hashes;
using toy::ids;
using toy::ToyWorker;

class LeasingTest : public toy::EngineTest {
protected:
    // An engine with a worker that has saved blocks 0 to 3.
    void begin(EngineOptions options = small()) {
        open(std::move(options));
        enroll(worker_);
        fill(worker_, hashes_);
    }
    Result<QueryOutcome> query_for(std::optional<std::chrono::nanoseconds> lease_time) {
        QueryRequest request;
        request.instance_id = "i";
        request.hashes = hashes_.views();
        request.request_id = "r";
        request.lease_time = lease_time;
        return engine_->query(request);
    }

    ToyWorker worker_{"i", 0, 0, 1, 1, 8, toy::layers(1, 64)};
    Hashes hashes_{0, 4};
};

TEST_F(LeasingTest, ALeaseForEverIsALongOne) {
    begin();
    const auto found = query_for(std::chrono::nanoseconds::max());
    ASSERT_TRUE(found && found->lease);
    ASSERT_TRUE(engine_->renew(*found->lease, std::chrono::nanoseconds::max()));
    worker_.wipe();
    const auto loaded = load(worker_, *found->lease, ids(4, 4));
    ASSERT_TRUE(loaded) << loaded.error().message;
    EXPECT_EQ(worker_.difference(hashes_, ids(4, 4)), "");
}

TEST_F(LeasingTest, NoLeaseIsLongerThanTheLongest) {
    EngineOptions options = small();
    options.lease_time = options.max_lease_time = 20ms;
    begin(options);
    const auto found = query_for(1h);
    ASSERT_TRUE(found && found->lease);
    while (engine_->stats().leases_expired == 0) std::this_thread::sleep_for(1ms);
    EXPECT_EQ(engine_->renew(*found->lease, 1h).error().code, Code::kNotFound);
}

TEST_F(LeasingTest, ATimeThatIsNotPositiveIsRefused) {
    begin();
    EXPECT_EQ(query_for(0s).error().code, Code::kInvalid);
    EXPECT_EQ(query_for(std::chrono::nanoseconds::min()).error().code, Code::kInvalid);
    const auto found = query_for({});
    ASSERT_TRUE(found && found->lease);
    EXPECT_EQ(engine_->renew(*found->lease, -1s).error().code, Code::kInvalid);
    EXPECT_TRUE(engine_->release(*found->lease)) << "it stayed as it was";
}

TEST_F(LeasingTest, AnInstanceThatHoldsTooManyIsToldToTryAgain) {
    EngineOptions options = small();
    options.max_leases_per_instance = 2;
    begin(options);
    const auto first = query_for({}), second = query_for({}), third = query_for({});
    ASSERT_TRUE(first && second);
    ASSERT_FALSE(third);
    EXPECT_EQ(third.error().code, Code::kQueueFull);
    EXPECT_EQ(engine_->stats().queue_full, 1U);
    EXPECT_EQ(engine_->stats().leases, 2U);
    ASSERT_TRUE(engine_->release(*first->lease));
    EXPECT_TRUE(query_for({}));
}

TEST_F(LeasingTest, AnEngineThatIsClosedKnowsNoLease) {
    begin();
    const auto found = query_for({});
    ASSERT_TRUE(found && found->lease);
    engine_->close();
    EXPECT_EQ(engine_->renew(*found->lease).error().code, Code::kCanceled);
    EXPECT_EQ(engine_->release(*found->lease).error().code, Code::kCanceled);
}

}  // namespace
}  // namespace pegaflow

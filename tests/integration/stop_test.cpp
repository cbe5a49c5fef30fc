// SPDX-License-Identifier: Apache-2.0
// How a serving process stops: copies under way get the drain timeout, what hangs does not hold it up, nor does a log that
// nobody reads end it.
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <future>

#include "tests/integration/tier_server.hpp"

namespace pegaflow::integration {
namespace {

class StopTest : public ::testing::Test {
protected:
    StopTest() : place_(std::filesystem::temp_directory_path() / fmt::format("pegaflow-stop-{}", ::getpid())) {
        std::filesystem::create_directories(place_);
    }
    ~StopTest() override { std::filesystem::remove_all(place_); }

    void start(const std::string& faults, const std::string& drain_timeout) {
        const std::string config = place_ / "server.toml";
        std::ofstream(config) << "[modules]\nbackends = [\"host\"]\nwrap = [\"fault=host\"]\n[module.fault]\n" << faults;
        if (log_.empty()) log_ = place_ / "log";
        TierSetup setup;
        setup.log = log_;
        setup.further = {"--config", config, "--server-drain-timeout", drain_timeout};
        server_ = std::make_unique<ServerProcess>(setup);
        client_ = Client::connect({.endpoint = server_->endpoint()}).value();
        ASSERT_TRUE(client_->start_session("w", "test", 1, 1));
        ASSERT_TRUE(client_->register_worker(worker_.registration()));
    }
    // Saves one block beside, and returns when the copy is under way.
    std::future<Result<SaveOutcome>> begin_save() {
        auto saved = std::async(std::launch::async, [this] {
            const std::string hash = hash_of(1);
            const std::string_view view = hash;
            const std::uint32_t slot = 0;
            const SaveLayer layer{"layer", {&slot, 1}, {&view, 1}};
            return client_->save({.instance_id = "w", .layers = {&layer, 1}});
        });
        const auto limit = std::chrono::steady_clock::now() + 20s;
        while (server_->metric("pegaflow_saves_in_flight") < 1 && std::chrono::steady_clock::now() < limit)
            std::this_thread::sleep_for(1ms);
        return saved;
    }

    std::filesystem::path place_;
    std::string log_;
    Worker worker_{64 << 10};
    std::unique_ptr<ServerProcess> server_;
    std::unique_ptr<Client> client_;
};

TEST_F(StopTest, CopiesUnderWayAreLetToEnd) {
    for (const int signal : {SIGTERM, SIGINT}) {
        start("delay_us = 2600000\n", "60s");
        auto saved = begin_save();
        server_->kill(signal);
        const auto outcome = saved.get();
        EXPECT_TRUE(outcome) << outcome.error().message;
        client_.reset();
        const int status = server_->wait();
        EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "signal " << signal << ", status " << status;
    }
}

TEST_F(StopTest, WhatHangsIsEndedAtTheDrainTimeout) {
    start("hang = 1\n", "300ms");
    auto saved = begin_save();
    server_->kill(SIGTERM);
    EXPECT_FALSE(saved.get());
    const int status = server_->wait();
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST_F(StopTest, ALogThatNobodyReadsEndsNothing) {
    log_ = place_ / "fifo";
    ASSERT_EQ(::mkfifo(log_.c_str(), 0600), 0);
    const int reader = ::open(log_.c_str(), O_RDONLY | O_NONBLOCK);
    ASSERT_GE(reader, 0);
    start("", "5s");
    ::close(reader);
    // Each of these writes to the log.
    ASSERT_TRUE(client_->unregister_instance("w"));
    ASSERT_TRUE(client_->register_worker(worker_.registration()));
    EXPECT_TRUE(client_->health());
    const int status = server_->stop(SIGTERM);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

}  // namespace
}  // namespace pegaflow::integration

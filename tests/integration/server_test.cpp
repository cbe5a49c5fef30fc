// SPDX-License-Identifier: Apache-2.0
// A real server and real clients on loopback: save, query and load byte for byte, refusals in the words of the wire, restart.
#include "server/server.hpp"

#include "tests/integration/shm_worker.hpp"

namespace pegaflow {
namespace {

using testing::kBlocks;
using testing::kBytes;
using testing::kLimit;
using testing::load;
using testing::save;
using testing::ShmWorker;

Result<std::unique_ptr<server::Server>> start_server(int port = 0) {
    server::Config config;
    config.listen = fmt::format("127.0.0.1:{}", port);
    config.admin_listen = "127.0.0.1:0";
    config.engine.pool_bytes = 16 << 20;
    config.fabric.backends = {"host"};
    config.drain_timeout = std::chrono::seconds(5);
    return server::Server::start(config);
}

TEST(ServerTest, SavesFromOneClientAndLoadsIntoAnotherByteForByte) {
    auto server = start_server();
    ASSERT_TRUE(server) << server.error().message;
    const std::string endpoint = fmt::format("127.0.0.1:{}", (*server)->port());
    auto writer = Client::connect({.endpoint = endpoint});
    auto reader = Client::connect({.endpoint = endpoint});
    ASSERT_TRUE(writer && reader);
    ShmWorker a("a");
    ShmWorker b("b");
    ASSERT_TRUE((*writer)->register_worker(a.registration()));
    ASSERT_TRUE((*reader)->register_worker(b.registration()));
    for (std::uint64_t i = 0; i < kBytes; ++i) {
        a.at(0, 3, i) = static_cast<std::uint8_t>(i);
        a.at(1, 3, i) = static_cast<std::uint8_t>(i >> 3);
    }
    const std::vector<std::string> hashes = {std::string(32, 'h')};
    const auto saved = save(**writer, "a", {3}, hashes);
    ASSERT_TRUE(saved) << saved.error().message;
    EXPECT_EQ(saved->bytes, 2 * kBytes);
    const std::vector<std::string_view> views(hashes.begin(), hashes.end());
    const auto found = (*reader)->query({.instance_id = "b", .hashes = views, .request_id = "r"});
    ASSERT_TRUE(found) << found.error().message;
    ASSERT_EQ(found->hit_blocks, 1U) << "an equal layout in the same namespace shares";
    const auto loaded = load(**reader, "b", *found->lease, {9});
    ASSERT_TRUE(loaded) << loaded.error().message;
    for (std::uint64_t i = 0; i < kBytes; ++i) {
        ASSERT_EQ(b.at(0, 9, i), static_cast<std::uint8_t>(i));
        ASSERT_EQ(b.at(1, 9, i), static_cast<std::uint8_t>(i >> 3));
    }
}

TEST(ServerTest, RefusesInTheWordsOfTheWire) {
    auto server = start_server();
    ASSERT_TRUE(server);
    auto client = Client::connect({.endpoint = fmt::format("http://127.0.0.1:{}", (*server)->port())});
    ASSERT_TRUE(client);
    const auto contains = [](const auto& result, const char* text) {
        return !result && result.error().message.find(text) != std::string::npos;
    };
    const std::vector<std::string> hashes = {std::string(32, 'h')};
    EXPECT_TRUE(contains(save(**client, "nobody", {0}, hashes), "instance nobody not found"));
    ShmWorker worker("w");
    auto two = worker.registration();
    two.world_size = 2;
    ASSERT_TRUE((*client)->register_worker(two));
    EXPECT_TRUE(contains(save(**client, "w", {0}, hashes), "registration incomplete: 1/2"));
    EXPECT_TRUE(contains((*client)->query({.instance_id = "w"}), "req_id must not be empty"));
    EXPECT_TRUE(contains((*client)->release(LeaseId{}), "query lease is unknown or expired"));
    auto lost = worker.registration();
    lost.instance_id = "lost";
    lost.layers[0].memory.handle = "pegaflow_no_such_object";
    EXPECT_FALSE((*client)->register_worker(lost));
    EXPECT_TRUE(contains((*client)->unregister_instance("nobody"), "instance nobody not found"));
}

TEST(ServerTest, ALoadOfAnUnknownLeaseFailsInItsState) {
    auto server = start_server();
    ASSERT_TRUE(server);
    auto client = Client::connect({.endpoint = fmt::format("127.0.0.1:{}", (*server)->port())});
    ASSERT_TRUE(client);
    ShmWorker worker("w");
    ASSERT_TRUE((*client)->register_worker(worker.registration()));
    const auto loaded = load(**client, "w", LeaseId{}, {0});
    ASSERT_FALSE(loaded);
    EXPECT_NE(loaded.error().message.find("query lease is unknown or expired"), std::string::npos);
}

TEST(ServerTest, TheEndOfASessionFreesTheInstance) {
    auto server = start_server();
    ASSERT_TRUE(server);
    const std::string endpoint = fmt::format("127.0.0.1:{}", (*server)->port());
    ShmWorker worker("w");
    auto watcher = Client::connect({.endpoint = endpoint});
    ASSERT_TRUE(watcher);
    {
        auto client = Client::connect({.endpoint = endpoint});
        ASSERT_TRUE(client);
        ASSERT_TRUE((*client)->start_session("w", "test", 1, 1));
        ASSERT_TRUE((*client)->register_worker(worker.registration()));
    }
    const auto limit = std::chrono::steady_clock::now() + kLimit;
    bool gone = false;
    while (!gone && std::chrono::steady_clock::now() < limit) {
        const std::string_view hash = "h";
        gone = !(*watcher)->query({.instance_id = "w", .hashes = {&hash, 1}, .request_id = "r"});
    }
    EXPECT_TRUE(gone);
}

// Until a save of `client` succeeds, or time is up.
bool saves_in_time(Client& client, const std::string& instance) {
    const std::vector<std::string> hashes = {std::string(32, 'h')};
    const auto limit = std::chrono::steady_clock::now() + kLimit;
    while (std::chrono::steady_clock::now() < limit) {
        if (save(client, instance, {1}, hashes)) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return false;
}

TEST(ServerTest, AClientRegistersAgainAfterARestart) {
    for (const bool with_session : {true, false}) {
        auto server = start_server();
        ASSERT_TRUE(server);
        const int port = (*server)->port();
        ShmWorker worker("w");
        auto client = Client::connect({.endpoint = fmt::format("127.0.0.1:{}", port)});
        ASSERT_TRUE(client);
        if (with_session) {
            ASSERT_TRUE((*client)->start_session("w", "test", 1, 1));
        }
        ASSERT_TRUE((*client)->register_worker(worker.registration()));
        server->reset();
        auto again = start_server(port);
        ASSERT_TRUE(again) << again.error().message;
        EXPECT_TRUE(saves_in_time(**client, "w")) << "with a session: " << with_session;
    }
}

TEST(ServerTest, AnotherSessionReplacesTheFirstWithoutEndingTheInstance) {
    auto server = start_server();
    ASSERT_TRUE(server);
    ShmWorker worker("w");
    auto client = Client::connect({.endpoint = fmt::format("127.0.0.1:{}", (*server)->port())});
    ASSERT_TRUE(client);
    ASSERT_TRUE((*client)->start_session("w", "test", 1, 1));
    ASSERT_TRUE((*client)->register_worker(worker.registration()));
    ASSERT_TRUE((*client)->start_session("w", "test", 1, 1));
    std::this_thread::sleep_for(std::chrono::milliseconds(200));  // in which the first stream's end would have been acted on
    EXPECT_TRUE(save(**client, "w", {1}, {std::string(32, 'h')}));
    EXPECT_EQ((*client)->start_session("", "test", 1, 1).error().code, Code::kInvalid);
}

TEST(ServerTest, RefusesWhatNoOtherProcessCanOpen) {
    auto server = start_server();
    ASSERT_TRUE(server);
    auto client = Client::connect({.endpoint = fmt::format("127.0.0.1:{}", (*server)->port())});
    ASSERT_TRUE(client);
    std::vector<std::uint8_t> mine(kBlocks * kBytes);
    LayerRegistration layer;
    layer.name = "layer.0";
    layer.memory.source = PEGA_SOURCE_ADDRESS;
    layer.memory.address = mine.data();
    layer.memory.length = mine.size();
    layer.num_blocks = kBlocks;
    layer.bytes_per_block = kBytes;
    WorkerRegistration worker;
    worker.instance_id = "w";
    worker.layers = {layer};
    const auto refused = (*client)->register_worker(worker);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::kInvalid);
    EXPECT_NE(refused.error().message.find("not an address of this process"), std::string::npos);
    // A wrapper reaches the server's reader, which refuses what is none.
    const auto unread = (*client)->register_worker(worker, {TransferMode::kKernel, {"no pickle"}});
    ASSERT_FALSE(unread);
    EXPECT_EQ(unread.error().code, Code::kInvalid);
    EXPECT_NE(unread.error().message.find("pickle"), std::string::npos) << unread.error().message;
}

// A server whose reads, or all copies, do not end by themselves.
Result<std::unique_ptr<server::Server>> start_hanging(std::map<std::string, std::string> rules) {
    server::Config config;
    config.listen = config.admin_listen = "127.0.0.1:0";
    config.engine.pool_bytes = 16 << 20;
    config.fabric.backends = {"host"};
    config.fabric.wrap = {{"fault", "host"}};
    config.fabric.options["fault"] = std::move(rules);
    config.drain_timeout = std::chrono::seconds(5);
    return server::Server::start(config);
}

// What a load through the wire is made of; it stays while the load does.
struct WireLoad {
    WireLoad(const LeaseId& lease, std::vector<std::uint32_t> blocks) : ids(std::move(blocks)), loads{{lease, targets}} {
        request.instance_id = "w";
        request.layer_groups = groups;
        request.loads = loads;
    }
    std::vector<std::uint32_t> ids;
    std::string_view names[2] = {"layer.0", "layer.1"};
    std::span<const std::string_view> groups[1] = {names};
    std::span<const std::uint32_t> targets[1] = {ids};
    LeaseLoad loads[1];
    LoadRequest request;
    LoadState state = LoadState::create().value();
};

class HungLoadTest : public ::testing::Test {
protected:
    // The first load hangs, later ones do not.
    void start() {
        auto server = start_hanging({{"hang", "1"}, {"op", "read"}, {"times", "1"}});
        ASSERT_TRUE(server) << server.error().message;
        server_ = std::move(*server);
        client_ = Client::connect({.endpoint = fmt::format("127.0.0.1:{}", server_->port())}).value();
        ASSERT_TRUE(client_->register_worker(worker_.registration()));
        for (std::uint64_t i = 0; i < kBytes; ++i) worker_.at(0, 3, i) = worker_.at(1, 3, i) = static_cast<std::uint8_t>(i * 7);
        ASSERT_TRUE(save(*client_, "w", {3}, hashes_));
    }
    LeaseId lease() {
        const std::vector<std::string_view> views(hashes_.begin(), hashes_.end());
        return client_->query({.instance_id = "w", .hashes = views, .request_id = "r"})->lease.value();
    }
    // Another request's bytes, after one that hung.
    void expect_others_intact() {
        const auto loaded = load(*client_, "w", lease(), {9});
        ASSERT_TRUE(loaded) << loaded.error().message;
        for (std::uint64_t i = 0; i < kBytes; ++i) ASSERT_EQ(worker_.at(1, 9, i), static_cast<std::uint8_t>(i * 7));
        for (std::uint64_t i = 0; i < kBytes; ++i) ASSERT_EQ(worker_.at(0, 5, i), 0) << "no byte came of what was given up";
    }

    ShmWorker worker_{"w"};
    std::unique_ptr<server::Server> server_;
    std::unique_ptr<Client> client_;
    const std::vector<std::string> hashes_ = {std::string(32, 'h')};
};

TEST_F(HungLoadTest, EndsAtItsDeadline) {
    start();
    WireLoad hung(lease(), {5});
    hung.request.deadline = std::chrono::steady_clock::now() + std::chrono::seconds(2);
    ASSERT_TRUE(client_->load(hung.request, hung.state.shm_name()));
    EXPECT_EQ(hung.state.wait(kLimit).error().code, Code::kInternal) << "it has failed, in time";
    expect_others_intact();
}

TEST_F(HungLoadTest, EndsWhenItIsCancelled) {
    start();
    WireLoad hung(lease(), {5});
    ASSERT_TRUE(client_->load(hung.request, hung.state.shm_name()));
    EXPECT_EQ(hung.state.wait(std::chrono::milliseconds(50)).error().code, Code::kDeadlineExceeded);
    EXPECT_FALSE(hung.state.ready());
    EXPECT_FALSE(client_->cancel_load("w", "pega_load_of_nobody"));
    EXPECT_FALSE(client_->cancel_load("another", hung.state.shm_name())) << "another instance's load is not its";
    ASSERT_TRUE(client_->cancel_load("w", hung.state.shm_name()));
    EXPECT_EQ(hung.state.wait(kLimit).error().code, Code::kInternal);
    EXPECT_FALSE(client_->cancel_load("w", hung.state.shm_name())) << "it is over";
    expect_others_intact();
}

TEST(ServerTest, NoBlockComesOfASaveWhoseCallHasEnded) {
    auto server = start_hanging({{"hang", "1"}, {"op", "write"}, {"times", "1"}});
    ASSERT_TRUE(server) << server.error().message;
    auto client = Client::connect({.endpoint = fmt::format("127.0.0.1:{}", (*server)->port())});
    ASSERT_TRUE(client);
    ShmWorker worker("w");
    ASSERT_TRUE((*client)->register_worker(worker.registration()));
    const std::string hash(32, 'h');
    const std::string_view view = hash;
    const std::uint32_t id = 1;
    const SaveLayer layers[] = {{"layer.0", {&id, 1}, {&view, 1}}, {"layer.1", {&id, 1}, {&view, 1}}};
    const auto begin = std::chrono::steady_clock::now();
    const auto late = (*client)->save({.instance_id = "w", .layers = layers, .deadline = begin + std::chrono::seconds(4)});
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().code, Code::kDeadlineExceeded) << late.error().message;
    EXPECT_EQ((*client)->query({.instance_id = "w", .hashes = {&view, 1}, .request_id = "r"})->hit_blocks, 0U);
    const auto again = save(**client, "w", {1}, {hash});
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(again->saved_blocks, 1U) << "nobody has claimed it any more";
}

TEST(ServerTest, AClientRegistersAgainWhatAnotherClientsSessionTookAway) {
    auto server = start_server();
    ASSERT_TRUE(server);
    const std::string endpoint = fmt::format("127.0.0.1:{}", (*server)->port());
    ShmWorker worker("w");
    auto client = Client::connect({.endpoint = endpoint});
    ASSERT_TRUE(client);
    ASSERT_TRUE((*client)->register_worker(worker.registration()));
    ASSERT_TRUE(saves_in_time(**client, "w"));
    {
        auto scheduler = Client::connect({.endpoint = endpoint});
        ASSERT_TRUE(scheduler);
        ASSERT_TRUE((*scheduler)->start_session("w", "test", 1, 1));
    }
    const std::string_view hash = "h";
    const auto limit = std::chrono::steady_clock::now() + kLimit;
    auto watcher = Client::connect({.endpoint = endpoint});
    ASSERT_TRUE(watcher);
    while ((*watcher)->query({.instance_id = "w", .hashes = {&hash, 1}, .request_id = "r"}) &&
           std::chrono::steady_clock::now() < limit)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_TRUE(saves_in_time(**client, "w")) << "the connection of its worker never broke";
}

}  // namespace
}  // namespace pegaflow

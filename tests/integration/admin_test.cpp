// SPDX-License-Identifier: Apache-2.0
// The admin port over real HTTP, and what a configuration file with interposers does to a server.
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "server/server.hpp"
#include "tests/integration/shm_worker.hpp"

namespace pegaflow {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
namespace json = boost::json;
using asio::ip::tcp;
using testing::kBytes;
using testing::load;
using testing::save;
using testing::ShmWorker;

struct Answer {
    int status = 0;
    std::string type, body;
    json::value parsed() const { return json::parse(body); }
};

class AdminTest : public ::testing::Test {
protected:
    void start(std::string_view more = "") {
        const std::string text = fmt::format(
            "log.level = \"error\"\n[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[pool]\n"
            "size = \"16mb\"\n{}",
            more);
        server::Config config;
        const auto parsed = server::parse_config(text, "test.toml", config);
        ASSERT_TRUE(parsed) << parsed.error().message;
        config.fabric.backends = {"host"};
        auto server = server::Server::start(config);
        ASSERT_TRUE(server) << server.error().message;
        server_ = std::move(*server);
        auto client = Client::connect({.endpoint = fmt::format("127.0.0.1:{}", server_->port())});
        ASSERT_TRUE(client) << client.error().message;
        client_ = std::move(*client);
        ASSERT_TRUE(client_->register_worker(worker_.registration()));
    }
    tcp::socket connect() {
        tcp::socket socket(io_);
        socket.connect({asio::ip::make_address("127.0.0.1"), static_cast<std::uint16_t>(server_->admin_port())});
        return socket;
    }
    Answer ask(http::verb verb, const std::string& target, const std::string& body = "") {
        tcp::socket socket = connect();
        return ask_on(socket, verb, target, body);
    }
    static Answer ask_on(tcp::socket& socket, http::verb verb, const std::string& target, const std::string& body = "") {
        http::request<http::string_body> request(verb, target, 11);
        request.set(http::field::host, "localhost");
        request.body() = body;
        request.prepare_payload();
        http::write(socket, request);
        boost::beast::flat_buffer buffer;
        http::response<http::string_body> response;
        http::read(socket, buffer, response);
        return {static_cast<int>(response.result_int()), std::string(response[http::field::content_type]), response.body()};
    }
    // The value of a metric; with its labels, if it has any.
    double metric(const std::string& name) {
        const std::string text = "\n" + ask(http::verb::get, "/metrics").body;
        const std::size_t at = text.find("\n" + name + " ");
        EXPECT_NE(at, std::string::npos) << name << " is not exposed";
        return at == std::string::npos ? -1 : std::strtod(text.c_str() + at + name.size() + 2, nullptr);
    }
    Result<QueryOutcome> query(const std::vector<std::string>& hashes) {
        const std::vector<std::string_view> views(hashes.begin(), hashes.end());
        return client_->query({.instance_id = "w", .hashes = views, .request_id = "r"});
    }

    asio::io_context io_;
    ShmWorker worker_{"w"};
    std::unique_ptr<server::Server> server_;
    std::unique_ptr<Client> client_;
    const std::vector<std::string> hashes_ = {std::string(32, 'a'), std::string(32, 'b')};
};

TEST_F(AdminTest, HealthNamesPoolDevicesAndWorkers) {
    start();
    const Answer answer = ask(http::verb::get, "/health");
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.type, "application/json");
    const json::value body = answer.parsed();
    EXPECT_EQ(body.at("status"), "ok");
    EXPECT_TRUE(body.at("problems").as_array().empty());
    EXPECT_EQ(body.at("pool").at("capacity_bytes").to_number<std::uint64_t>(), 16U << 20);
    ASSERT_EQ(body.at("devices").as_array().size(), 1U);
    EXPECT_EQ(body.at("devices").at(0).at("device"), "host:0");
    EXPECT_EQ(body.at("devices").at(0).at("ok"), true);
    ASSERT_EQ(body.at("workers").as_array().size(), 1U);
    EXPECT_EQ(body.at("workers").at(0).at("instance"), "w");
    EXPECT_EQ(ask(http::verb::get, "/ready").parsed().at("ready"), true);
}

TEST_F(AdminTest, MetricsCountWhatWasMoved) {
    start();
    ASSERT_TRUE(save(*client_, "w", {1, 2}, hashes_));
    ASSERT_TRUE(save(*client_, "w", {1, 2}, hashes_)) << "again: duplicates";
    const auto found = query({hashes_[0], hashes_[1], std::string(32, 'c')});
    ASSERT_TRUE(found) << found.error().message;
    ASSERT_EQ(found->hit_blocks, 2U);
    ASSERT_TRUE(load(*client_, "w", *found->lease, {3, 4}));
    EXPECT_EQ(metric("pegaflow_save_bytes_total"), 2 * 2 * kBytes);
    EXPECT_EQ(metric("pegaflow_load_bytes_total"), 2 * 2 * kBytes);
    EXPECT_EQ(metric("pegaflow_cache_block_hits_total"), 2);
    EXPECT_EQ(metric("pegaflow_cache_block_misses_total"), 1);
    EXPECT_EQ(metric("pegaflow_cache_resident_blocks"), 2);
    EXPECT_EQ(metric("pegaflow_inflight_bytes") + metric("pegaflow_pool_staging_bytes"), 0);
    EXPECT_EQ(metric("pegaflow_hll_total_requests{window=\"15m\"}"), 3);
    EXPECT_NEAR(metric("pegaflow_hll_cardinality{window=\"1d\"}"), 1, 0.1);
    EXPECT_NEAR(metric("pegaflow_hll_estimated_hit_rate{window=\"1h\"}"), 2.0 / 3, 0.1);
    EXPECT_EQ(metric("pegaflow_cache_tier_block_requests_total{tier=\"ram\"}"), 2);
    EXPECT_EQ(metric("pegaflow_leases"), 0);
    EXPECT_EQ(metric("pegaflow_instances"), 1);
    const std::string text = ask(http::verb::get, "/metrics").body;
    EXPECT_NE(text.find("pegaflow_rpc_requests_total{method=\"save\""), std::string::npos) << text;
    EXPECT_NE(text.find("pegaflow_load_duration_seconds_bucket"), std::string::npos);
    EXPECT_EQ(text.find("_total_total"), std::string::npos);
}

// Every word that begins with pegaflow_ and stands between back quotes, up to a brace.
std::set<std::string> names_of_the_page() {
    std::ifstream file(PEGAFLOW_SOURCE_DIR "/docs/metrics.md");
    std::set<std::string> out;
    for (std::string line; std::getline(file, line);) {
        for (std::size_t at = line.find("`pegaflow_"); at != std::string::npos; at = line.find("`pegaflow_", at + 1))
            out.insert(line.substr(at + 1, line.find_first_of("`{", at + 1) - at - 1));
    }
    return out;
}

TEST_F(AdminTest, ThePageOfMetricsNamesExactlyWhatIsExposed) {
    const auto cache = std::filesystem::temp_directory_path() / fmt::format("pegaflow-metrics-{}", ::getpid());
    std::filesystem::create_directory(cache);
    start(fmt::format("[ssd]\npaths = [\"{}\"]\ncapacity = \"16mb\"\nsegment-size = \"1mb\"\n", cache.string()));
    std::set<std::string> exposed;
    std::stringstream text(ask(http::verb::get, "/metrics").body);
    for (std::string word; text >> word;) {
        if (word == "TYPE" && text >> word) exposed.insert(word);
    }
    std::filesystem::remove_all(cache);
    std::set<std::string> named = names_of_the_page();
    ASSERT_GT(named.size(), 50U);
    named.erase("pegaflow_");  // the prefix itself
    EXPECT_THAT(exposed, ::testing::ElementsAreArray(named));
}

TEST_F(AdminTest, CleansUpMemoryAndInstances) {
    start();
    ASSERT_TRUE(save(*client_, "w", {1, 2}, hashes_));
    const json::value memory = ask(http::verb::post, "/cache/memory/cleanup").parsed();
    EXPECT_EQ(memory.at("evicted_blocks").to_number<int>(), 2);
    EXPECT_EQ(metric("pegaflow_pool_used_bytes"), 0);
    EXPECT_EQ(metric("pegaflow_cache_residence_duration_seconds_count{reason=\"cleanup\"}"), 2);
    EXPECT_EQ(metric("pegaflow_cache_residence_duration_seconds_bucket{reason=\"cleanup\",le=\"+Inf\"}"), 2);
    const json::value listed = ask(http::verb::get, "/instances").parsed();
    EXPECT_EQ(listed.at("instances").at(0), "w");
    EXPECT_EQ(listed.at("details").at(0).at("sealed"), true);
    EXPECT_EQ(ask(http::verb::post, "/instances/cleanup?id=nobody").status, 404);
    EXPECT_EQ(ask(http::verb::post, "/instances/cleanup?name=w").status, 400);
    const json::value removed = ask(http::verb::post, "/instances/cleanup?id=w").parsed();
    EXPECT_EQ(removed.at("removed_instances").at(0), "w");
    EXPECT_TRUE(ask(http::verb::get, "/instances").parsed().at("instances").as_array().empty());
}

TEST_F(AdminTest, RefusesWhatItDoesNotKnowAndStaysUp) {
    start();
    EXPECT_EQ(ask(http::verb::get, "/").status, 404);
    EXPECT_EQ(ask(http::verb::post, "/health").status, 405);
    EXPECT_EQ(ask(http::verb::get, "/instances/cleanup").status, 405);
    for (const std::string& garbage : {std::string("\x16\x03\x01 no HTTP\r\n\r\n"), std::string(200'000, 'x'),
                                       std::string("POST /health HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n")}) {
        tcp::socket socket = connect();
        boost::system::error_code error;
        asio::write(socket, asio::buffer(garbage), error);
        char byte = 0;
        asio::read(socket, asio::buffer(&byte, 1), error);
        EXPECT_TRUE(error) << "the connection ends";
    }
    tcp::socket kept = connect();
    EXPECT_EQ(ask_on(kept, http::verb::get, "/ready").status, 200);
    EXPECT_EQ(ask_on(kept, http::verb::get, "/ready").status, 200) << "on the same connection";
}

TEST_F(AdminTest, ADeviceWhoseTransfersFailMakesItDegraded) {
    start("[modules]\nwrap = [\"fault=host\"]\n[module.fault]\nfail = \"1:REGION_LOST\"\n");
    for (int i = 0; i < 10; ++i) EXPECT_FALSE(save(*client_, "w", {1, 2}, hashes_));
    const Answer answer = ask(http::verb::get, "/health");
    EXPECT_EQ(answer.status, 200) << "it still serves";
    const json::value body = answer.parsed();
    EXPECT_EQ(body.at("status"), "degraded");
    EXPECT_EQ(body.at("devices").at(0).at("ok"), false);
    EXPECT_GE(body.at("devices").at(0).at("failures_in_row").to_number<int>(), 8);
}

TEST_F(AdminTest, InterposersOfTheConfigurationStack) {
    const auto trace = std::filesystem::temp_directory_path() / fmt::format("pegaflow-trace-{}.jsonl", ::getpid());
    start(
        fmt::format("[modules]\nwrap = [\"fault=host\", \"trace=host\"]\n[module.fault]\nafter = 1\nfail = \"1:PEER_LOST\"\n"
                    "[module.trace]\nfile = \"{}\"\n[module.host]\nthreads = 1\n",
                    trace.string()));
    ASSERT_TRUE(save(*client_, "w", {1}, {hashes_[0]}));
    EXPECT_FALSE(save(*client_, "w", {2}, {hashes_[1]}));
    std::vector<json::value> lines;
    std::ifstream file(trace);
    for (std::string line; std::getline(file, line);) lines.push_back(json::parse(line));
    std::filesystem::remove(trace);
    ASSERT_GE(lines.size(), 2U);
    EXPECT_EQ(lines.front().at("status").to_number<int>(), PEGA_OK);
    EXPECT_EQ(lines.front().at("bytes").to_number<std::uint64_t>(), 2 * kBytes);
    EXPECT_EQ(lines.back().at("status").to_number<int>(), PEGA_PEER_LOST) << "the trace sees what the fault did";
}

TEST_F(AdminTest, AHungDeviceIsAnsweredInTimeAndTheServerGoesOn) {
    start("[modules]\nwrap = [\"fault=host\"]\n[module.fault]\nhang = \"1\"\n");
    const std::vector<std::string_view> views(hashes_.begin(), hashes_.end());
    const std::vector<std::uint32_t> ids = {1, 2};
    const SaveLayer layers[] = {{"layer.0", ids, views}, {"layer.1", ids, views}};
    const auto begin = std::chrono::steady_clock::now();
    const auto saved =
        client_->save({.instance_id = "w", .layers = layers, .deadline = begin + std::chrono::milliseconds(200)});
    EXPECT_FALSE(saved);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
    EXPECT_EQ(ask(http::verb::get, "/health").status, 200);
    EXPECT_EQ(ask(http::verb::post, "/instances/cleanup").status, 200) << "what hangs is cancelled";
    EXPECT_EQ(metric("pegaflow_pool_used_bytes"), 0);
}

}  // namespace
}  // namespace pegaflow

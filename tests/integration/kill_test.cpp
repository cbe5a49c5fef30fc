// SPDX-License-Identifier: Apache-2.0
// Clients that are killed at random moments of saving and loading, or that take their memory away: nothing of theirs stays, and
// the others are served.
// PEGAFLOW_KILLS sets how many (default 12).
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/ip/tcp.hpp>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <sstream>

#include "rpc/load_state.hpp"
#include "server/server.hpp"
#include "tests/integration/shm_worker.hpp"

namespace pegaflow {
namespace {

constexpr int kManyKills = 50;
constexpr std::size_t kSpareDescriptors = 8;  // of gRPC, for connections that it has not given up yet

// The program `pegaflow demo`: saves, queries and loads 2 MiB blocks of shared memory.
pid_t start_client(int port, int seed) {
    const std::string endpoint = fmt::format("http://127.0.0.1:{}", port);
    const std::string text = std::to_string(seed);
    const pid_t child = ::fork();
    if (child == 0) {
        std::freopen("/dev/null", "w", stdout);
        std::freopen("/dev/null", "w", stderr);
        ::execl(PEGAFLOW_PROGRAM, "pegaflow", "demo", "--endpoint", endpoint.c_str(), "--blocks", "32", "--seed", text.c_str(),
                nullptr);
        ::_exit(127);
    }
    return child;
}

int wait_for(pid_t child) {
    int status = 0;
    ::waitpid(child, &status, 0);
    return status;
}

std::string get(int port, const std::string& path) {
    boost::asio::ip::tcp::iostream stream("127.0.0.1", std::to_string(port));
    stream << "GET " << path << " HTTP/1.0\r\n\r\n" << std::flush;
    std::ostringstream text;
    text << stream.rdbuf();
    return text.str();
}

// The value of a metric without labels.
double metric(int port, const std::string& name) {
    std::istringstream lines(get(port, "/metrics"));
    for (std::string line; std::getline(lines, line);) {
        if (line.starts_with(name + " ")) return std::strtod(line.c_str() + name.size(), nullptr);
    }
    return -1;
}

std::size_t count_objects(const std::string& prefix) {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/dev/shm"))
        count += entry.path().filename().string().starts_with(prefix) ? 1 : 0;
    return count;
}

std::set<std::string> load_states() {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
        std::string name = entry.path().filename().string();
        if (name.starts_with(rpc::kLoadStatePrefix)) names.insert(std::move(name));
    }
    return names;
}

// How much of the server's own traffic is under way.
EngineStats stats_of(int admin) {
    EngineStats out;
    out.saves_in_flight = static_cast<std::uint64_t>(metric(admin, "pegaflow_saves_in_flight"));
    out.loads_in_flight = static_cast<std::uint64_t>(metric(admin, "pegaflow_loads_in_flight"));
    return out;
}

// Lines of this process's own table of mappings that name shared memory, and its open descriptors: what a server could keep of
// a client.
std::size_t shared_mappings() {
    std::ifstream maps("/proc/self/maps");
    std::size_t count = 0;
    for (std::string line; std::getline(maps, line);) count += line.find("/dev/shm/pega") != std::string::npos ? 1 : 0;
    return count;
}

std::size_t descriptors() {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
    return count;
}

// What is wrong with the server's books when nobody is there any more; "" when nothing is.
std::string unclean(int admin) {
    std::string out;
    for (const char* name : {"pegaflow_instances", "pegaflow_leases", "pegaflow_inflight_blocks", "pegaflow_saves_in_flight",
                             "pegaflow_loads_in_flight"}) {
        if (const double value = metric(admin, name); value != 0) out += fmt::format("{} {} ", name, value);
    }
    return out;
}

std::string more_than(std::size_t most, std::size_t there, const char* what) {
    return there <= most ? "" : fmt::format("{} {}, at most {} expected", there, what, most);
}

// What is still wrong after a while in which it may end.
template <class Wrong>
std::string soon(Wrong wrong) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    std::string out = wrong();
    while (!out.empty() && std::chrono::steady_clock::now() < limit) {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        out = wrong();
    }
    return out;
}

TEST(KillTest, NothingOfAKilledClientStays) {
    server::Config config;
    // Copies take a while, so that many clients die in the midst of one.
    config.fabric.wrap = {{"fault", "host"}};
    config.fabric.options["fault"] = {{"delay_us", "60000"}};
    config.listen = config.admin_listen = "127.0.0.1:0";
    config.engine.pool_bytes = 256 << 20;
    config.fabric.backends = {"host"};
    auto server = server::Server::start(config);
    ASSERT_TRUE(server) << server.error().message;
    const int port = (*server)->port();
    const int admin = (*server)->admin_port();
    const char* wanted = std::getenv("PEGAFLOW_KILLS");
    const int kills = wanted != nullptr ? std::atoi(wanted) : 12;
    const std::set<std::string> there_before = load_states();
    const std::size_t memories_before = count_objects("pegaflow_demo_");
    std::mt19937 random(7);
    int in_save = 0, in_load = 0;
    EXPECT_EQ(wait_for(start_client(port, 200000)), 0) << "before any is killed";
    const std::size_t mappings_before = shared_mappings();
    const std::size_t descriptors_before = descriptors();
    for (int i = 0; i < kills; ++i) {
        const pid_t child = start_client(port, i);
        ASSERT_GT(child, 0);
        std::this_thread::sleep_for(std::chrono::milliseconds(random() % 250));
        const EngineStats at_death = stats_of(admin);
        ::kill(child, SIGKILL);
        in_save += at_death.saves_in_flight != 0 ? 1 : 0;
        in_load += at_death.loads_in_flight != 0 ? 1 : 0;
        wait_for(child);
        // Its own memory is the client's to remove; a killed one leaves it behind.
        std::error_code error;
        std::filesystem::remove(fmt::format("/dev/shm/pegaflow_demo_{}_0", child), error);
    }
    EXPECT_EQ(soon([&] { return unclean(admin); }), "");
    EXPECT_EQ(metric(admin, "pegaflow_pool_used_bytes"), metric(admin, "pegaflow_cache_resident_bytes"))
        << "every used page belongs to a resident block";
    // The next client is served: every byte is checked by the program itself.
    const int status = wait_for(start_client(port, 100000));
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    EXPECT_EQ(count_objects("pegaflow_demo_"), memories_before);
    const auto left = [&] {
        std::string names;
        for (const std::string& name : load_states()) names += there_before.contains(name) ? "" : name + " ";
        return names;
    };
    EXPECT_EQ(soon(left), "") << "names of killed clients' load states stay";
    EXPECT_NE(get(admin, "/health").find("200 OK"), std::string::npos);
    EXPECT_EQ(soon([&] { return more_than(mappings_before, shared_mappings(), "mappings"); }), "");
    EXPECT_EQ(soon([&] { return more_than(descriptors_before + kSpareDescriptors, descriptors(), "descriptors"); }), "");
    std::printf("%d clients killed, %d while a save was under way, %d while a load was\n", kills, in_save, in_load);
    ::testing::Test::RecordProperty("kills", kills);
    ::testing::Test::RecordProperty("in_save", in_save);
    ::testing::Test::RecordProperty("in_load", in_load);
    if (kills >= kManyKills) {
        EXPECT_GT(in_save, 0);
        EXPECT_GT(in_load, 0);
    }
}

TEST(KillTest, AClientThatShortensItsMemoryEndsOnlyItsOwnCopies) {
    using testing::kBytes;
    server::Config config;
    config.listen = config.admin_listen = "127.0.0.1:0";
    config.engine.pool_bytes = 16 << 20;
    config.fabric.backends = {"host"};
    auto server = server::Server::start(config);
    ASSERT_TRUE(server) << server.error().message;
    auto client = Client::connect({.endpoint = fmt::format("127.0.0.1:{}", (*server)->port())});
    ASSERT_TRUE(client);
    testing::ShmWorker shortened("shortened");
    testing::ShmWorker other("other");
    ASSERT_TRUE((*client)->register_worker(shortened.registration()));
    ASSERT_TRUE((*client)->register_worker(other.registration()));
    for (std::uint64_t layer = 0; layer < 2; ++layer) std::memset(&shortened.at(layer, 0, 0), 7, kBytes);
    ASSERT_TRUE(testing::save(**client, "shortened", {0}, {std::string(32, 'a')}));
    const std::string kept(32, 'a');
    const std::string_view hash = kept;
    const auto found = (*client)->query({.instance_id = "shortened", .hashes = {&hash, 1}, .request_id = "r"});
    ASSERT_TRUE(found && found->lease) << found.error().message;
    const int fd = ::shm_open(fmt::format("/pegaflow_test_{}_shortened", ::getpid()).c_str(), O_RDWR, 0);
    ASSERT_EQ(::ftruncate(fd, 0), 0);
    ::close(fd);
    EXPECT_FALSE(testing::save(**client, "shortened", {1}, {std::string(32, 'b')}));
    EXPECT_FALSE(testing::load(**client, "shortened", *found->lease, {2}));
    // Nothing was kept of what could not be read.
    const std::string torn(32, 'b');
    const std::string_view torn_hash = torn;
    const auto missing = (*client)->query({.instance_id = "other", .hashes = {&torn_hash, 1}, .request_id = "s"});
    ASSERT_TRUE(missing) << missing.error().message;
    EXPECT_EQ(missing->hit_blocks, 0U);
    ASSERT_TRUE(testing::save(**client, "other", {1}, {std::string(32, 'c')}));
    const auto hit = (*client)->query({.instance_id = "other", .hashes = {&hash, 1}, .request_id = "t"});
    ASSERT_TRUE(hit && hit->lease) << hit.error().message;
    ASSERT_TRUE(testing::load(**client, "other", *hit->lease, {5}));
    EXPECT_EQ(other.at(1, 5, kBytes - 1), 7);
}

}  // namespace
}  // namespace pegaflow

// SPDX-License-Identifier: Apache-2.0
// `pegaflow bench engine` as a program: the hits of a small trace, against those that a plain model of a cache has.
#include <algorithm>
#include <set>
#include <vector>

#include "tests/unit/tools/program.hpp"

namespace pegaflow {
namespace {

namespace json = boost::json;

using Requests = std::vector<std::vector<int>>;

Requests read_trace() {
    Requests out;
    std::ifstream file(PEGAFLOW_TRACE);
    for (std::string line; std::getline(file, line);)
        out.push_back(json::value_to<std::vector<int>>(json::parse(line).at("hash_ids")));
    return out;
}

std::size_t distinct(const Requests& requests) {
    std::set<int> all;
    for (const auto& request : requests) all.insert(request.begin(), request.end());
    return all.size();
}

// Blocks found in a cache that forgets the one not used for the longest time. A request uses the prefix that it finds, and then
// saves the rest; within both, earlier blocks count as used later, so that a prefix loses its end first.
std::uint64_t lru_hits(const Requests& requests, std::size_t capacity) {
    std::vector<int> cache;  // the last is the one used last
    std::uint64_t hits = 0;
    for (const auto& request : requests) {
        std::size_t found = 0;
        while (found < request.size() && std::find(cache.begin(), cache.end(), request[found]) != cache.end()) ++found;
        hits += found;
        for (std::size_t i = found; i-- > 0;) {
            cache.erase(std::find(cache.begin(), cache.end(), request[i]));
            cache.push_back(request[i]);
        }
        for (std::size_t i = request.size(); i-- > found;) {
            if (std::find(cache.begin(), cache.end(), request[i]) != cache.end()) continue;
            cache.push_back(request[i]);
            if (cache.size() > capacity) cache.erase(cache.begin());
        }
    }
    return hits;
}

class BenchEngineTest : public testing::ProgramTest {
protected:
    json::value replay(const std::string& arguments) {
        const testing::Ended ended =
            run(fmt::format("bench engine --trace {} --replay-only --ssd 0 {} --json", PEGAFLOW_TRACE, arguments));
        EXPECT_EQ(ended.exit, 0) << ended.err;
        return ended.exit == 0 ? ended.json() : json::value();
    }
};

TEST_F(BenchEngineTest, HitsAreThoseOfTheTrace) {
    const Requests requests = read_trace();
    ASSERT_FALSE(requests.empty());
    const json::value report = replay("--policy lru --capacity 20 50 80 --scan 0");
    testing::expect_head(report, "engine");
    EXPECT_EQ(report.at("requests").to_number<std::size_t>(), requests.size());
    EXPECT_EQ(report.at("distinct_blocks").to_number<std::size_t>(), distinct(requests));
    EXPECT_EQ(report.at("infinite_hit_blocks").to_number<std::uint64_t>(), lru_hits(requests, SIZE_MAX));
    const json::array& rows = report.at("results").as_array();
    ASSERT_EQ(rows.size(), 3U);
    std::set<std::uint64_t> different;
    for (const json::value& row : rows) {
        const auto capacity = row.at("capacity_blocks").to_number<std::size_t>();
        const auto hits = row.at("hit_blocks").to_number<std::uint64_t>();
        EXPECT_EQ(hits, lru_hits(requests, capacity)) << "capacity " << capacity;
        EXPECT_GT(row.at("inserts_per_s").to_number<double>(), 0);
        EXPECT_GT(row.at("insert_ns").at("p50").to_number<double>(), 0);
        different.insert(hits);
    }
    EXPECT_EQ(different.size(), rows.size()) << "the trace is too small to tell capacities apart";
}

TEST_F(BenchEngineTest, WhoeverAsksForLimitsMeasuresThem) {
    EXPECT_EQ(run(fmt::format("bench engine --trace {} --replay-only --max-query-us 1", PEGAFLOW_TRACE)).exit, 1);
}

TEST_F(BenchEngineTest, WhatIsNoTraceIsRefused) {
    write("trace.jsonl", "{\"hash_ids\": [1, 2]}\n{\"ids\": [1]}\n");
    const testing::Ended ended = run("bench engine --trace trace.jsonl --replay-only");
    EXPECT_EQ(ended.exit, 1);
    EXPECT_NE(ended.err.find("trace.jsonl:2"), std::string::npos) << ended.err;
    EXPECT_EQ(run("bench engine --trace nowhere.jsonl").exit, 1);
}

}  // namespace
}  // namespace pegaflow

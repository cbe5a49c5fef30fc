// SPDX-License-Identifier: Apache-2.0
#include "base/numa.hpp"

#include <sched.h>
#include <set>

namespace pegaflow::base {
namespace {

TEST(Numa, EveryProcessorBelongsToOneNode) {
    const auto nodes = numa_nodes();
    ASSERT_FALSE(nodes.empty());
    std::set<int> cpus;
    for (const NumaNode& node : nodes) {
        EXPECT_FALSE(node.cpus.empty());
        for (const int cpu : node.cpus) EXPECT_TRUE(cpus.insert(cpu).second) << cpu;
    }
}

TEST(Numa, BindsOnlyToNodesThatExist) {
    const NumaNode first = numa_nodes().front();
    std::thread bound([&] {
        EXPECT_FALSE(bind_thread_to_node(987654));
        if (!bind_thread_to_node(first.id)) return;  // a container may forbid it
        const std::set<int> allowed(first.cpus.begin(), first.cpus.end());
        EXPECT_TRUE(allowed.contains(::sched_getcpu()));
    });
    bound.join();
    EXPECT_FALSE(prefer_node(nullptr, 4096, -1));
    EXPECT_FALSE(prefer_node(nullptr, 4096, 1 << 20));
}

}  // namespace
}  // namespace pegaflow::base

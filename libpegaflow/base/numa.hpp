// SPDX-License-Identifier: Apache-2.0
// numa.hpp - the machine's memory nodes, from /sys; binding of threads and memory without libnuma.
#pragma once

#include <cstddef>
#include <vector>

namespace pegaflow::base {

struct NumaNode {
    int id = 0;
    std::vector<int> cpus;
};

// Nodes that have processors; one node 0 with all processors where /sys tells nothing. [any]
std::vector<NumaNode> numa_nodes();
// Lets the calling thread run on the node's processors only; false when the node is unknown or the system refuses. [any]
bool bind_thread_to_node(int node) noexcept;
// Prefers the node for pages of the range that are not yet touched; false when refused. [any]
bool prefer_node(void* address, std::size_t length, int node) noexcept;

}  // namespace pegaflow::base

// SPDX-License-Identifier: Apache-2.0
// metrics.hpp - what Prometheus sees: gauges and counters read from the engine at each scrape, histograms fed as things happen.
#pragma once

#include <memory>
#include <string>

#include "pegaflow/engine.hpp"

namespace pegaflow::server {

class Metrics {
public:
    Metrics();
    ~Metrics();

    // Feeds the histograms of saves and loads; valid as long as this. [any]
    EngineObserver observer();
    // One RPC ended. [any]
    void rpc(const char* method, const char* status, double seconds);
    // The exposition in the Prometheus text format 0.0.4. [any]
    std::string expose(const Engine& engine) const;

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace pegaflow::server

// SPDX-License-Identifier: Apache-2.0
// host_engine.hpp - a small engine on the host back end, for what serves one.
#pragma once

#include <gtest/gtest.h>

#include <memory>

#include "pegaflow/engine.hpp"
#include "pegaflow/transfer.hpp"

namespace pegaflow::server {

class HostEngineTest : public ::testing::Test {
protected:
    void SetUp() override {
        fabric_ = *Fabric::open({.backends = {"host"}});
        EngineOptions options;
        options.pool_bytes = 1 << 20;
        engine_ = *Engine::create(options, *fabric_);
    }

    std::unique_ptr<Fabric> fabric_;
    std::unique_ptr<Engine> engine_;
};

}  // namespace pegaflow::server

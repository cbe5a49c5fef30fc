// SPDX-License-Identifier: Apache-2.0
// admin.hpp - the HTTP side of the serving process: health, readiness, metrics, instances, clean-up.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "pegaflow/engine.hpp"
#include "pegaflow/result.hpp"

namespace pegaflow::server {

struct AdminHooks {
    std::function<std::string()> metrics;  // null = /metrics answers 404
    std::function<bool()> ready;           // false while starting or draining
};

class Admin {
public:
    // Listens on "address:port" with a thread of its own. `engine` is borrowed for its life. kInvalid.
    static Result<std::unique_ptr<Admin>> start(const std::string& address, Engine& engine, AdminHooks hooks);
    ~Admin();  // ends open connections

    int port() const noexcept;

private:
    struct State;
    explicit Admin(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace pegaflow::server

// SPDX-License-Identifier: Apache-2.0
// sessions.hpp - which client stream owns an instance, and what of the client must go when the stream ends.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "pegaflow/engine.hpp"
#include "rpc/load_state.hpp"

namespace pegaflow::server {

class Sessions {
public:
    explicit Sessions(Engine& engine) : engine_(engine) {}

    // A stream for the instance; the newest owns it. Gives the token for `ended`. [any]
    std::uint64_t open(const std::string& instance);
    // A load of the instance reports into this object. Its name goes with the session: a client that was killed cannot remove
    // it. Without a session it is its creator's alone. [any]
    void reports_into(const std::string& instance, const rpc::LoadStateName& object);
    // The load could not begin: when no session will, the name goes now. [any]
    void not_begun(const std::string& instance, const rpc::LoadStateName& object);
    // The end of the owner's stream ends the instance, after its copies. [any]; waits, so not on a thread that calls need.
    void ended(const std::string& instance, std::uint64_t token);

private:
    struct Session {
        std::uint64_t owner = 0;
        std::vector<rpc::LoadStateName> load_states;  // those that may still have their names
        std::size_t look_at = 0;                      // how many there may be before those without a name are forgotten
    };

    Engine& engine_;
    std::mutex mutex_;
    std::uint64_t last_ = 0;                   // guarded by mutex_
    std::map<std::string, Session> sessions_;  // guarded by mutex_
};

}  // namespace pegaflow::server

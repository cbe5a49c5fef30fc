// SPDX-License-Identifier: Apache-2.0
#include "server/sessions.hpp"

#include <algorithm>

#include "base/log.hpp"

namespace pegaflow::server {
namespace {

constexpr std::size_t kLookAt = 64;

}  // namespace

std::uint64_t Sessions::open(const std::string& instance) {
    const std::lock_guard lock(mutex_);
    return sessions_[instance].owner = ++last_;
}

void Sessions::reports_into(const std::string& instance, const rpc::LoadStateName& object) {
    const std::lock_guard lock(mutex_);
    const auto it = sessions_.find(instance);
    if (it == sessions_.end()) return;
    Session& session = it->second;
    session.load_states.push_back(object);
    if (session.load_states.size() < std::max(session.look_at, kLookAt)) return;
    std::erase_if(session.load_states, [](const rpc::LoadStateName& name) { return !name.linked(); });
    session.look_at = session.load_states.size() * 2;
}

void Sessions::not_begun(const std::string& instance, const rpc::LoadStateName& object) {
    {
        const std::lock_guard lock(mutex_);
        if (sessions_.contains(instance)) return;
    }
    object.unlink();
}

void Sessions::ended(const std::string& instance, std::uint64_t token) {
    std::vector<rpc::LoadStateName> load_states;
    {
        const std::lock_guard lock(mutex_);
        const auto it = sessions_.find(instance);
        if (it == sessions_.end() || it->second.owner != token) return;
        load_states = std::move(it->second.load_states);
        sessions_.erase(it);
    }
    const auto result = engine_.unregister_instance(instance);
    for (const rpc::LoadStateName& object : load_states) object.unlink();
    rpc::remove_abandoned_load_states();  // those of which it never told
    base::log_info("server", "the session of instance {} ended{}", instance, result ? ", its memory was released" : "");
}

}  // namespace pegaflow::server

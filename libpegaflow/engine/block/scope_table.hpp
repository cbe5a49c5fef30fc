// SPDX-License-Identifier: Apache-2.0
// scope_table.hpp - the engine's numbers for pairs of namespace and layout fingerprint, and back. Numbers begin at 1 and stay.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace pegaflow::engine {

class ScopeTable {
public:
    struct Scope {
        std::string name_space, fingerprint;
    };

    // The number of the pair, a new one when it is new. [any]
    std::uint64_t number_of(std::string_view name_space, std::string_view fingerprint) {
        const std::lock_guard lock(mutex_);
        const auto [it, added] = numbers_.try_emplace({std::string(name_space), std::string(fingerprint)}, scopes_.size() + 1);
        if (added) scopes_.push_back({std::string(name_space), std::string(fingerprint)});
        return it->second;
    }
    // `number` came from number_of; the result stays where it is. [any]
    const Scope& scope(std::uint64_t number) const {
        const std::lock_guard lock(mutex_);
        return scopes_[number - 1];
    }

private:
    mutable std::mutex mutex_;
    std::map<std::pair<std::string, std::string>, std::uint64_t> numbers_;  // guarded by mutex_
    std::deque<Scope> scopes_;  // guarded by mutex_; a deque does not move what it holds
};

}  // namespace pegaflow::engine

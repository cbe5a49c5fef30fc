// SPDX-License-Identifier: Apache-2.0
// option_kinds.hpp - the kinds of options that the table is made of: how the texts of a value become a member of Config, and
// back.
//
// Whatever a kind reads it writes exactly, so that a printed configuration is the same when it is read.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "server/config.hpp"

namespace pegaflow::server {

// The member of a Config that an option stands for.
template <class T>
using Member = std::function<T&(Config&)>;

Option text_option(std::string key, std::string help, std::string type, const Member<std::string>& member,
                   std::string example = "");
Option choice_option(std::string key, std::string help, std::vector<std::string> choices, const Member<std::string>& member);
Option address_option(std::string key, std::string help, const Member<std::string>& member);
Option bool_option(std::string key, std::string help, const Member<bool>& member);
// From `least` to 1 EiB.
Option size_option(std::string key, std::string help, std::uint64_t least, const Member<std::uint64_t>& member);
// From a millisecond to a million hours.
Option duration_option(std::string key, std::string help, const Member<std::chrono::nanoseconds>& member);
Option list_option(std::string key, std::string help, const Member<std::vector<std::string>>& member, Parts example);
Option wrap_option();
Option windows_option();

Option integer_option(std::string key, std::string help, std::uint64_t least, std::uint64_t most,
                      const std::function<std::uint64_t(const Config&)>& get,
                      const std::function<void(Config&, std::uint64_t)>& set);
template <class T>
Option integer_option(std::string key, std::string help, std::uint64_t least, std::uint64_t most, const Member<T>& member) {
    return integer_option(
        std::move(key), std::move(help), least, most,
        [member](const Config& c) { return static_cast<std::uint64_t>(member(const_cast<Config&>(c))); },
        [member](Config& c, std::uint64_t number) { member(c) = static_cast<T>(number); });
}

}  // namespace pegaflow::server

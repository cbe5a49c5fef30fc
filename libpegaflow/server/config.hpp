// SPDX-License-Identifier: Apache-2.0
// config.hpp - every option of the serving process, once: its TOML key, its flag, its type, its default and what it means.
//
// The TOML reader, the command line and the reference page all come from the one table. An unknown key, a wrong type or an
// impossible value is refused with the file, the line and what was expected.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pegaflow/engine.hpp"
#include "pegaflow/result.hpp"
#include "pegaflow/transfer.hpp"

namespace pegaflow::server {

struct Config {
    std::string listen = "127.0.0.1:50055";
    std::string admin_listen = "127.0.0.1:9091";
    bool metrics = true;
    std::chrono::nanoseconds drain_timeout = std::chrono::seconds(30);
    std::string log_level = "info";
    FabricOptions fabric;
    EngineOptions engine = {.distinct_windows = {std::chrono::minutes(15), std::chrono::hours(1), std::chrono::hours(24)}};
    // Where each key was set, as messages say it: `pegaflow.toml:5: key "cache.eviction"`, or the flag.
    std::map<std::string, std::string, std::less<>> origins;
};

// A value in texts: of a list one for each element, of anything else one.
using Parts = std::vector<std::string>;

// How an option is written and read.
struct Option {
    // What a file has for it: a string, a string or a number of bytes, an integer, true or false, an array of strings.
    enum class Kind { kText, kSize, kInteger, kBoolean, kList };

    std::string key;  // "pool.size"; the flag is --pool-size
    Kind kind = Kind::kText;
    std::string type;  // for people: "a size", "an integer from 1 to 65536", "true or false", ...
    std::string help;
    Parts example;  // for messages
    std::function<Parts(const Config&)> get;
    std::function<Result<void>(Config&, const Parts&)> set;

    std::string flag() const;                              // "--pool-size"
    std::string toml(const Config& config) const;          // the value as a file has it
    Result<Parts> from_flag(std::string_view text) const;  // a list is split at its commas; kInvalid
};

// All options in the order of the reference page. [any]
const std::vector<Option>& options();

// Reads a file over `config`. kInvalid "file:line: ..."; kNotFound when it cannot be opened. [any]
Result<void> read_config(const std::string& path, Config& config);
// The same from text; `name` stands for the file in messages. [any]
Result<void> parse_config(std::string_view text, std::string_view name, Config& config);
// Sets one option by key, from the text of its flag. kInvalid. [any]
Result<void> set_option(Config& config, std::string_view key, std::string_view value);
// Checks what only the loaded modules know: names of devices and policies. kInvalid with where the name was set and those that
// exist. [any]
Result<void> check_names(const Config& config, Fabric& fabric);
// "15m", "1h", "1d": a window of time in its largest whole unit. [any]
std::string format_window(std::chrono::nanoseconds window);
// The configuration as a TOML file, which read again gives the same, but for flags that are not UTF-8: TOML cannot hold them.
// [any]
std::string to_toml(const Config& config);
// The reference page in Markdown. [any]
std::string config_reference();

}  // namespace pegaflow::server

// SPDX-License-Identifier: Apache-2.0
// bench_head.hpp - what every benchmark tells before its results: the tool, the command, the machine, and what is wrong with
// it.
#pragma once

#include <boost/json.hpp>
#include <iosfwd>
#include <string>
#include <vector>

#include "pegaflow/result.hpp"
#include "tools/pegaflow/bench_gpu.hpp"

namespace CLI {
class App;
}

namespace pegaflow {
struct DeviceInfo;
}

namespace pegaflow::cli {

struct Context;

// Of the sources that this was built from, "" when they were no checkout; and CMake's kind of build.
extern const char* const kGitRevision;
extern const char* const kBuildType;

class Head {
public:
    // Takes the time and the load of the machine, so it is made before anything is measured.
    explicit Head(const Context& context);

    // The device under test. A GPU's link is read anew each time: it is slower while nothing uses it, so call it again after
    // the first large copies.
    void device(const DeviceInfo& info);
    // Host memory of the benchmark: "2M" when it is in huge pages that were set aside, else "off".
    void hugepages(const std::string& kind);
    // Something about the set-up that makes the numbers worse or less certain; the same text is kept once.
    void warn(std::string text);
    // Further members of env.
    boost::json::object& env() noexcept { return env_; }

    // What the GPU's link carries at most in one direction, before headers of packets; 0 = not known.
    double link_bytes_per_s() const noexcept { return gpu_.link_bytes_per_s(); }
    // "pegaflow bench NAME  v1.2 (git ...)  GPU ...", without a line end.
    std::string title(const std::string& name) const;
    // One line "# warning: ..." each.
    void print_warnings(std::ostream& out) const;
    // An object with schema, schema_version, tool, command, start_time and env. Results are the caller's to add.
    boost::json::object to_json() const;

private:
    std::vector<std::string> command_;
    std::string start_time_;
    boost::json::object env_;
    Gpu gpu_;
    std::vector<std::string> warnings_;
};

// `name` as an option without a value (standard output, "-") or with a file: --json, --json=FILE.
void add_output_option(CLI::App& verb, const std::string& name, std::string& to, const std::string& what);
// Puts the text there; "" is nowhere. kInvalid when the file cannot be written.
Result<void> write_output(const std::string& to, const std::string& text, std::ostream& standard);

}  // namespace pegaflow::cli

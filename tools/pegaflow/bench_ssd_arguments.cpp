// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "pegaflow/bytes.hpp"
#include "tools/pegaflow/bench_ssd.hpp"

namespace pegaflow::cli::ssd {

Result<std::vector<std::uint64_t>> parse_sizes(const std::string& text) {
    std::vector<std::uint64_t> out;
    std::stringstream parts(text);
    for (std::string part; std::getline(parts, part, ',');) {
        PEGA_ASSIGN(const std::uint64_t size, parse_size(part));
        if (size < 512 || size % 512 != 0)
            return fail(Code::kInvalid, fmt::format("block size {} must be a multiple of 512", part));
        out.push_back(size);
    }
    return out;
}

Result<std::vector<Mode>> parse_modes(const std::string& text) {
    std::vector<Mode> out;
    std::stringstream parts(text);
    for (std::string part; std::getline(parts, part, ',');) {
        const Mode all[] = {Mode::kRead, Mode::kWrite, Mode::kMixed};
        const auto* found = std::find_if(std::begin(all), std::end(all), [&](Mode m) { return part == to_string(m); });
        if (found == std::end(all)) return fail(Code::kInvalid, fmt::format("--rw {}: expected read, write or mixed", part));
        out.push_back(*found);
    }
    return out;
}

}  // namespace pegaflow::cli::ssd

// SPDX-License-Identifier: Apache-2.0
// bytes.hpp - sizes as people write them: "30gb", "4K", "1.5 GiB". Suffixes are powers of 1024.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "pegaflow/result.hpp"

namespace pegaflow {

// Parses a decimal number with an optional suffix b, k, m, g, t (also kb, kib, ...; any case; fractions allowed).
// kInvalid on anything else, on negative values and on overflow. [any]
Result<std::uint64_t> parse_size(std::string_view text);

// "1.5 GiB", "512 B": at most three digits after the point, none when they are zero. [any]
std::string format_size(std::uint64_t bytes);

}  // namespace pegaflow

// SPDX-License-Identifier: Apache-2.0
// printable.hpp - text of unknown origin as people and JSON can have it: valid UTF-8 without control characters.
#pragma once

#include <string>
#include <string_view>

namespace pegaflow::cli {

// What is neither is written as \xNN, byte by byte. [any]
std::string printable(std::string_view text);

}  // namespace pegaflow::cli

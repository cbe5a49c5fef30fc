// SPDX-License-Identifier: Apache-2.0
// sha256.hpp - SHA-256 (FIPS 180-4) of short texts that name things: nobody finds two with one digest. Slow; not for blocks.
#pragma once

#include <string>
#include <string_view>

namespace pegaflow::base {

// The digest of `text`, as 64 hex digits. [any]
std::string sha256_hex(std::string_view text);

}  // namespace pegaflow::base

// SPDX-License-Identifier: Apache-2.0
#include "base/hash.hpp"

#include <sys/random.h>
#include <sys/types.h>

namespace pegaflow::base {
namespace {

HashKey draw_key() noexcept {
    HashKey key{};
    auto* bytes = reinterpret_cast<unsigned char*>(&key);
    for (std::size_t filled = 0; filled < sizeof key;) {
        const ssize_t count = ::getrandom(bytes + filled, sizeof key - filled, 0);
        if (count > 0) filled += static_cast<std::size_t>(count);  // a signal is no reason to stop
    }
    return key;
}

}  // namespace

const HashKey kHashKey = draw_key();

}  // namespace pegaflow::base

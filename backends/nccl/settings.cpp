// SPDX-License-Identifier: Apache-2.0
#include "settings.hpp"

#include <arpa/inet.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "wire.hpp"

namespace nccl_backend {
namespace {

// An address of one interface: the wildcards say nothing that a peer could connect to.
bool is_one_address(const char* text) {
    in_addr four{};
    in6_addr six{};
    if (std::strlen(text) >= sizeof(Address::host)) return false;
    if (::inet_pton(AF_INET, text, &four) == 1) return four.s_addr != INADDR_ANY;
    return ::inet_pton(AF_INET6, text, &six) == 1 && std::memcmp(&six, &in6addr_any, sizeof six) != 0;
}

}  // namespace

pega_status Settings::read(const pega_host* host, const pega_option* options, std::uint32_t count, Settings& out) {
    struct Number {
        const char* key;
        std::uint64_t least, most;
        std::uint64_t& value;
    };
    const Number numbers[] = {{"port", 0, 65535, out.port},
                              {"chunk_bytes", 64U << 10, kMostPartBytes, out.chunk_bytes},
                              {"direct_bytes", 4U << 10, kMostPartBytes, out.direct_bytes},
                              {"multiprocessors", 1, 128, out.multiprocessors},
                              {"max_ctas", 0, 64, out.max_ctas},
                              {"timeout_ms", 100, 3'600'000, out.timeout_ms}};
    bool ok = true;
    for (const Number& number : numbers) {
        const char* text = pegaflow::backend::option(options, count, number.key, nullptr);
        if (text == nullptr) continue;
        char* end = nullptr;
        errno = 0;
        const unsigned long long value = std::strtoull(text, &end, 10);
        if (errno == 0 && end != text && *end == 0 && *text != '-' && value >= number.least && value <= number.most) {
            number.value = value;
            continue;
        }
        ok = false;
        pegaflow::backend::log(host, PEGA_LOG_ERROR, "nccl", "option %s is \"%s\", expected a number from %llu to %llu",
                               number.key, text, static_cast<unsigned long long>(number.least),
                               static_cast<unsigned long long>(number.most));
    }
    if (const char* text = pegaflow::backend::option(options, count, "bind", nullptr); text != nullptr) {
        out.bind = text;
        if (!is_one_address(text)) {
            ok = false;
            pegaflow::backend::log(host, PEGA_LOG_ERROR, "nccl",
                                   "option bind is \"%s\", expected the numeric address of one interface", text);
        }
    }
    return ok ? PEGA_OK : PEGA_INVALID;
}

}  // namespace nccl_backend

// SPDX-License-Identifier: Apache-2.0
// peer.hpp - the other process of `bench p2p`: this program again, which offers memory of a device and says what lies in it.
//
// It writes one line with its device address and the memory's descriptor, in hexadecimal. Then each line "digest LENGTH" is
// answered by the CRC-32C of the first LENGTH bytes, as its own device sees them. It ends with its standard input.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "pegaflow/transfer.hpp"

namespace pegaflow::cli {

class PeerProcess {
public:
    // Starts it with `arguments` behind the program's name and waits for what it offers. kInternal when it ends instead: it has
    // said why on its standard error.
    static Result<std::unique_ptr<PeerProcess>> start(const std::vector<std::string>& arguments);
    ~PeerProcess();  // ends it
    PeerProcess(const PeerProcess&) = delete;
    PeerProcess& operator=(const PeerProcess&) = delete;

    const std::vector<std::byte>& address() const noexcept { return address_; }
    const std::vector<std::byte>& descriptor() const noexcept { return descriptor_; }
    // Of the first `length` bytes of its memory. kPeerLost.
    Result<std::uint32_t> digest(std::uint64_t length);

private:
    PeerProcess() = default;
    Result<std::string> read_line();

    pid_t pid_ = -1;
    std::FILE* in_ = nullptr;   // its standard output
    std::FILE* out_ = nullptr;  // its standard input
    std::vector<std::byte> address_, descriptor_;
};

// What the other process does; `in` and `out` are its standard input and output.
Result<void> serve_peer(const FabricOptions& options, const std::string& device, std::uint64_t bytes, std::FILE* in,
                        std::FILE* out);

}  // namespace pegaflow::cli

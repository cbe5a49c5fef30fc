// SPDX-License-Identifier: Apache-2.0
// peer_process.hpp - the other process of checks that need two: forked before the module is loaded, because libraries of
// devices do not survive a fork.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace pegaflow::conformance {

class PeerProcess {
public:
    using Bytes = std::vector<std::uint8_t>;
    // Exit code of the process, from what it was told.
    using Work = std::function<int(const Bytes& address, const Bytes& descriptor)>;

    // Forks; the child runs `work` when it is told to, and ends when it was not.
    explicit PeerProcess(const Work& work);
    ~PeerProcess();
    PeerProcess(const PeerProcess&) = delete;
    PeerProcess& operator=(const PeerProcess&) = delete;

    // Starts the work, once. False when the child is gone or was used before.
    bool tell(const Bytes& address, const Bytes& descriptor);
    // Whether it has ended; does not wait.
    bool ended();
    // Waits for the end: the status of waitpid.
    int wait();

private:
    pid_t child_ = -1;
    int status_ = 0;
    int pipe_ = -1;
};

}  // namespace pegaflow::conformance

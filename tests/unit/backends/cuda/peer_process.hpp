// SPDX-License-Identifier: Apache-2.0
// peer_process.hpp - the other process of the peer tests: this very program again, in a role, with a socket between the two.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace pegaflow {

// Messages over a socket, each with its length before it. Reading is false when the other side is gone.
bool send_message(int socket, std::span<const std::byte> bytes);
std::optional<std::vector<std::byte>> receive_message(int socket);

class OtherProcess {
public:
    // Starts this program again as `role` on `device`; the role's socket is descriptor 3.
    OtherProcess(const std::string& role, const std::string& device);
    // Starts this program again with these arguments, in the same way.
    explicit OtherProcess(const std::vector<std::string>& arguments) { start(arguments); }
    ~OtherProcess();  // kills what still runs
    OtherProcess(const OtherProcess&) = delete;
    OtherProcess& operator=(const OtherProcess&) = delete;

    int socket() const noexcept { return socket_; }
    pid_t pid() const noexcept { return pid_; }
    // The exit code; -1 after a signal.
    int wait();
    // Kills it at once, and removes what the fake driver keeps in shared memory for it. As `wait`.
    int kill();

private:
    void start(const std::vector<std::string>& arguments);
    pid_t pid_ = -1;
    int socket_ = -1;
};

// The role and the device that this process was started for; empty when a person or ctest started it.
std::string role_of_this_process();
std::string device_of_this_process();
constexpr int kRoleSocket = 3;

}  // namespace pegaflow

// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/backends/cuda/peer_process.hpp"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>

namespace pegaflow {
namespace {

constexpr const char* kRole = "PEGAFLOW_TEST_ROLE";
constexpr const char* kDevice = "PEGAFLOW_TEST_DEVICE";

std::string variable(const char* name) {
    const char* text = std::getenv(name);
    return text != nullptr ? text : "";
}

}  // namespace

bool send_message(int socket, std::span<const std::byte> bytes) {
    const std::uint64_t size = bytes.size();
    return ::send(socket, &size, sizeof size, MSG_NOSIGNAL) == sizeof size &&
           ::send(socket, bytes.data(), size, MSG_NOSIGNAL) == static_cast<ssize_t>(size);
}

std::optional<std::vector<std::byte>> receive_message(int socket) {
    std::uint64_t size = 0;
    if (::recv(socket, &size, sizeof size, MSG_WAITALL) != sizeof size) return std::nullopt;
    std::vector<std::byte> bytes(size);
    if (size != 0 && ::recv(socket, bytes.data(), size, MSG_WAITALL) != static_cast<ssize_t>(size)) return std::nullopt;
    return bytes;
}

OtherProcess::OtherProcess(const std::string& role, const std::string& device) {
    ::setenv(kRole, role.c_str(), 1);
    ::setenv(kDevice, device.c_str(), 1);
    start({"--gtest_filter=PeerRole.DISABLED_Run", "--gtest_also_run_disabled_tests", "--gtest_brief=1"});
    ::unsetenv(kRole);
    ::unsetenv(kDevice);
}

void OtherProcess::start(const std::vector<std::string>& arguments) {
    int ends[2] = {-1, -1};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return;
    socket_ = ends[0];
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, ends[1], kRoleSocket);
    ::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    std::string program = "/proc/self/exe";
    std::vector<std::string> copies = arguments;
    std::vector<char*> all = {program.data()};
    for (std::string& argument : copies) all.push_back(argument.data());
    all.push_back(nullptr);
    if (::posix_spawn(&pid_, program.c_str(), &actions, nullptr, all.data(), environ) != 0) pid_ = -1;
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
}

OtherProcess::~OtherProcess() {
    kill();
    ::close(socket_);
}

int OtherProcess::wait() {
    if (pid_ < 0) return -1;
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int OtherProcess::kill() {
    if (pid_ < 0) return -1;
    const std::string objects = "pega_fake_cuda_" + std::to_string(pid_) + "_";
    ::kill(pid_, SIGKILL);
    const int code = wait();
    for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
        std::error_code ignored;
        if (entry.path().filename().string().starts_with(objects)) std::filesystem::remove(entry.path(), ignored);
    }
    return code;
}

std::string role_of_this_process() { return variable(kRole); }
std::string device_of_this_process() { return variable(kDevice); }

}  // namespace pegaflow

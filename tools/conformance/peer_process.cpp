// SPDX-License-Identifier: Apache-2.0
#include "tools/conformance/peer_process.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <exception>

namespace pegaflow::conformance {
namespace {

bool send_bytes(int fd, const PeerProcess::Bytes& bytes) {
    const std::uint64_t size = bytes.size();
    return ::send(fd, &size, sizeof size, MSG_NOSIGNAL) == sizeof size &&
           ::send(fd, bytes.data(), size, MSG_NOSIGNAL) == static_cast<ssize_t>(size);
}

bool receive_bytes(int fd, PeerProcess::Bytes& bytes) {
    std::uint64_t size = 0;
    if (::recv(fd, &size, sizeof size, MSG_WAITALL) != sizeof size) return false;
    bytes.resize(size);
    return ::recv(fd, bytes.data(), size, MSG_WAITALL) == static_cast<ssize_t>(size);
}

}  // namespace

PeerProcess::PeerProcess(const Work& work) {
    int ends[2] = {-1, -1};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return;
    child_ = ::fork();
    if (child_ == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // also when the module hangs in it
        ::close(ends[0]);
        Bytes address;
        Bytes descriptor;
        int code = 0;
        try {
            if (receive_bytes(ends[1], address) && receive_bytes(ends[1], descriptor)) code = work(address, descriptor);
        } catch (const std::exception&) {
            code = 5;
        }
        ::_exit(code);
    }
    ::close(ends[1]);
    pipe_ = ends[0];
}

PeerProcess::~PeerProcess() { wait(); }

bool PeerProcess::tell(const Bytes& address, const Bytes& descriptor) {
    return child_ > 0 && pipe_ >= 0 && send_bytes(pipe_, address) && send_bytes(pipe_, descriptor);
}

bool PeerProcess::ended() {
    if (child_ > 0 && ::waitpid(child_, &status_, WNOHANG) == child_) child_ = -1;
    return child_ <= 0;
}

int PeerProcess::wait() {
    if (pipe_ >= 0) ::close(pipe_);
    pipe_ = -1;
    if (child_ > 0) ::waitpid(child_, &status_, 0);
    child_ = -1;
    return status_;
}

}  // namespace pegaflow::conformance

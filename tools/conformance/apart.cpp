// SPDX-License-Identifier: Apache-2.0
// The suites in a process of their own, which reports each check as it begins and ends; the parent watches.
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tools/conformance/conformance.hpp"

namespace pegaflow::conformance {
namespace {

constexpr std::size_t kLongestText = 8192;
constexpr int kMostHangs = 3;  // each takes the whole limit

// One message of the process: what it tells, how a check ended, the check's name, a zero, and the text.
enum Tells : char { kBegins = 'b', kEnds = 'e', kIsDone = 'd' };

void tell(int fd, Tells what, const CheckResult& about = {}) {
    std::string message{static_cast<char>(what), static_cast<char>(about.outcome)};
    message += about.name + '\0' + about.text.substr(0, kLongestText);
    [[maybe_unused]] const auto sent = ::send(fd, message.data(), message.size(), MSG_NOSIGNAL);
}

[[noreturn]] void work(const Options& options, int fd) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    Options told = options;
    told.on_begin = [fd](const std::string& name) { tell(fd, kBegins, {name, Outcome::kPassed, ""}); };
    told.on_result = [fd](const CheckResult& result) { tell(fd, kEnds, result); };
    run(told);
    tell(fd, kIsDone);
    std::exit(0);  // not _exit: what looks for leaks does so here
}

// One process, from its fork to its end.
class Process {
public:
    Process(const Options& options, std::vector<CheckResult>& results) : options_(options), results_(results) {
        std::fflush(nullptr);
        int ends[2] = {-1, -1};
        if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return;
        child_ = ::fork();
        if (child_ == 0) {
            ::close(ends[0]);
            work(options, ends[1]);
        }
        ::close(ends[1]);
        fd_ = ends[0];
    }
    ~Process() { ::close(fd_); }
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;

    std::size_t begun = 0;
    std::string running;  // the check under way; "" = none
    bool hung = false;

    // Hears what it tells until it ends. Returns what went wrong with the process, "" = nothing.
    std::string watch(std::chrono::seconds limit) {
        if (child_ <= 0) return "no process could be started for it";
        while (!hung && hear(limit)) {
        }
        if (hung) ::kill(child_, SIGKILL);
        int status = 0;
        ::waitpid(child_, &status, 0);
        if (hung) return fmt::format("it did not end within {} s", limit.count());
        if (WIFSIGNALED(status))
            return fmt::format("it was killed by signal {} ({})", WTERMSIG(status), ::strsignal(WTERMSIG(status)));
        if (!done_ || WEXITSTATUS(status) != 0)
            return fmt::format("it ended the process with exit code {}", WEXITSTATUS(status));
        return "";
    }

private:
    // Takes one message. False when there will be none any more.
    bool hear(std::chrono::seconds limit) {
        pollfd ready{fd_, POLLIN, 0};
        const int count = ::poll(&ready, 1, static_cast<int>(std::chrono::milliseconds(limit).count()));
        if (count < 0) return errno == EINTR;
        hung = count == 0;
        if (hung) return false;
        char message[kLongestText + 1024];
        const ssize_t size = ::recv(fd_, message, sizeof message, 0);
        if (size < 3) return size < 0 && errno == EINTR;
        const std::string body(message + 2, static_cast<std::size_t>(size) - 2);
        const std::string name = body.substr(0, body.find('\0'));
        done_ = message[0] == kIsDone;
        if (message[0] == kBegins) {
            ++begun;
            running = name;
        } else if (message[0] == kEnds) {
            running.clear();
            results_.push_back({name, static_cast<Outcome>(message[1]), body.substr(name.size() + 1)});
            if (options_.on_result) options_.on_result(results_.back());
        }
        return true;
    }

    const Options& options_;
    std::vector<CheckResult>& results_;
    pid_t child_ = -1;
    int fd_ = -1;
    bool done_ = false;
};

}  // namespace

std::vector<CheckResult> run_apart(const Options& options, std::chrono::seconds limit) {
    std::vector<CheckResult> results;
    Options rest = options;
    for (int hangs = 0;;) {
        Process process(rest, results);
        std::string wrong = process.watch(limit);
        if (wrong.empty()) return results;
        hangs += process.hung ? 1 : 0;
        const bool last = process.running.empty() || hangs == kMostHangs;
        if (last && !process.running.empty()) wrong += "; the checks after it were not run";
        const char* outside = process.begun == 0 ? "entry" : "unload";
        results.push_back({process.running.empty() ? outside : process.running, Outcome::kFailed, wrong});
        if (options.on_result) options.on_result(results.back());
        if (last) return results;
        rest.pass_over += process.begun;
    }
}

}  // namespace pegaflow::conformance

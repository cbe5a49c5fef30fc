// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/bench_nccl_peer.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

extern char** environ;

namespace pegaflow::cli {
namespace {

constexpr int kAnswerMs = 120'000;

struct PeerAnswer {
    std::int32_t code = 0;  // 0 = done, else a Code
    char text[252] = {};
};

Result<void> write_all(int fd, const void* bytes, std::size_t length) {
    const auto* at = static_cast<const char*>(bytes);
    while (length != 0) {
        const ssize_t count = ::write(fd, at, length);
        if (count <= 0) return fail(Code::kPeerLost, "the other process of the benchmark does not listen", errno);
        at += count;
        length -= static_cast<std::size_t>(count);
    }
    return {};
}

Result<void> read_all(int fd, void* bytes, std::size_t length, int timeout_ms) {
    auto* at = static_cast<char*>(bytes);
    while (length != 0) {
        pollfd waiting{fd, POLLIN, 0};
        if (::poll(&waiting, 1, timeout_ms) == 0)
            return fail(Code::kPeerLost, "the other process of the benchmark does not answer");
        const ssize_t count = ::read(fd, at, length);
        if (count <= 0) return fail(Code::kPeerLost, "the other process of the benchmark has ended", errno);
        at += count;
        length -= static_cast<std::size_t>(count);
    }
    return {};
}

Result<void> send_bytes(int fd, const std::vector<std::byte>& bytes) {
    const auto length = static_cast<std::uint32_t>(bytes.size());
    PEGA_TRY(write_all(fd, &length, sizeof length));
    return write_all(fd, bytes.data(), bytes.size());
}

Result<void> serve(NcclEnd& end, const PeerRequest& request, std::byte* image) {
    switch (request.task) {
        case PeerTask::kFill:
            return end.fill(request.pattern != 0, request.seed);
        case PeerTask::kJoin:
            return end.join(request.unique, 1);
        case PeerTask::kPlain:
            return end.plain(request.plan);
        case PeerTask::kImage:
            break;
    }
    PEGA_ASSIGN(const std::byte* const bytes, end.image());
    std::memcpy(image, bytes, end.region().length());
    return {};
}

}  // namespace

Result<std::unique_ptr<NcclPeer>> NcclPeer::start(std::vector<std::string> arguments, std::uint64_t bytes) {
    std::unique_ptr<NcclPeer> peer(new NcclPeer);
    int to[2];
    int from[2];
    if (::pipe(to) != 0 || ::pipe(from) != 0) return fail(Code::kNoMemory, "no pipe", errno);
    peer->to_ = to[1];
    peer->from_ = from[0];
    peer->bytes_ = bytes;
    peer->shared_ = ::memfd_create("pegaflow-bench-nccl", 0);
    if (peer->shared_ < 0 || ::ftruncate(peer->shared_, static_cast<off_t>(bytes)) != 0)
        return fail(Code::kNoMemory, "no shared memory for the peer's image", errno);
    void* image = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, peer->shared_, 0);
    if (image == MAP_FAILED) return fail(Code::kNoMemory, "cannot map the peer's image", errno);
    peer->image_ = static_cast<std::byte*>(image);
    arguments.insert(arguments.begin(), "pegaflow");
    arguments.emplace_back("--serve-peer");
    arguments.push_back(fmt::format("{},{},{}", to[0], from[1], peer->shared_));
    std::vector<char*> raw;
    for (std::string& argument : arguments) raw.push_back(argument.data());
    raw.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addclose(&actions, to[1]);
    ::posix_spawn_file_actions_addclose(&actions, from[0]);
    const int failed = ::posix_spawn(&peer->pid_, "/proc/self/exe", &actions, nullptr, raw.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(to[0]);
    ::close(from[1]);
    if (failed != 0) {
        peer->pid_ = -1;
        return fail(Code::kInternal, "cannot start the other process", failed);
    }
    PEGA_TRY(peer->wait());
    PEGA_TRY(peer->take(peer->address_));
    PEGA_TRY(peer->take(peer->descriptor_));
    return peer;
}

NcclPeer::~NcclPeer() {
    for (const int fd : {to_, from_, shared_}) {
        if (fd >= 0) ::close(fd);
    }
    if (image_ != nullptr) ::munmap(image_, bytes_);
    if (pid_ <= 0) return;
    // It ends when its pipe does; one that hangs in NCCL does not.
    for (int i = 0; i < 100; ++i) {
        if (::waitpid(pid_, nullptr, WNOHANG) == pid_) return;
        ::usleep(50'000);
    }
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
}

Result<void> NcclPeer::take(std::vector<std::byte>& out) {
    std::uint32_t length = 0;
    PEGA_TRY(read_all(from_, &length, sizeof length, kAnswerMs));
    if (length > 4096) return fail(Code::kCorrupt, "the other process of the benchmark says nonsense");
    out.resize(length);
    return read_all(from_, out.data(), length, kAnswerMs);
}

Result<void> NcclPeer::begin(const PeerRequest& request) { return write_all(to_, &request, sizeof request); }

Result<void> NcclPeer::wait() {
    PeerAnswer answer;
    PEGA_TRY(read_all(from_, &answer, sizeof answer, kAnswerMs));
    answer.text[sizeof answer.text - 1] = 0;
    if (answer.code != 0) return fail(static_cast<Code>(answer.code), fmt::format("in the other process: {}", answer.text));
    return {};
}

Result<void> NcclPeer::ask(const PeerRequest& request) {
    PEGA_TRY(begin(request));
    return wait();
}

Result<void> serve_nccl_peer(NcclEnd& end, const std::string& pipes) {
    int in = -1;
    int out = -1;
    int shared = -1;
    if (std::sscanf(pipes.c_str(), "%d,%d,%d", &in, &out, &shared) != 3)
        return fail(Code::kInvalid, "--serve-peer is internal");
    const std::uint64_t bytes = end.region().length();
    void* image = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
    if (image == MAP_FAILED) return fail(Code::kNoMemory, "cannot map the image", errno);
    const auto answer = [out](const Result<void>& result) {
        PeerAnswer said;
        said.code = result ? 0 : static_cast<std::int32_t>(result.error().code);
        if (!result) std::snprintf(said.text, sizeof said.text, "%s", result.error().message.c_str());
        return write_all(out, &said, sizeof said);
    };
    PEGA_ASSIGN(const auto address, end.device().address());
    PEGA_ASSIGN(const auto descriptor, end.region().export_descriptor());
    PEGA_TRY(answer({}));
    PEGA_TRY(send_bytes(out, address));
    PEGA_TRY(send_bytes(out, descriptor));
    PeerRequest request;
    while (read_all(in, &request, sizeof request, -1)) PEGA_TRY(answer(serve(end, request, static_cast<std::byte*>(image))));
    ::munmap(image, bytes);
    return {};
}

}  // namespace pegaflow::cli

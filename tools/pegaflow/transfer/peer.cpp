// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/transfer/peer.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "base/crc32c.hpp"

namespace pegaflow::cli {
namespace {

constexpr std::uint64_t kStagingBytes = 64U << 20;

std::string to_hex(const std::vector<std::byte>& bytes) {
    std::string out;
    for (const std::byte byte : bytes) out += fmt::format("{:02x}", static_cast<unsigned>(byte));
    return out;
}

std::optional<std::vector<std::byte>> from_hex(const std::string& text) {
    if (text.empty() || text.size() % 2 != 0 || text.find_first_not_of("0123456789abcdef") != std::string::npos)
        return std::nullopt;
    std::vector<std::byte> out;
    for (std::size_t i = 0; i < text.size(); i += 2)
        out.push_back(static_cast<std::byte>(std::strtoul(text.substr(i, 2).c_str(), nullptr, 16)));
    return out;
}

// The digest of a region's first bytes, read through a piece of host memory.
class Digester {
public:
    Digester(Region& region, Region& staging, Channel& channel) : region_(region), staging_(staging), channel_(channel) {}
    Result<std::uint32_t> of(std::uint64_t length) {
        std::uint32_t digest = 0;
        for (std::uint64_t done = 0; done < length;) {
            const std::uint64_t part = std::min(length - done, staging_.length());
            Transfer transfer;
            transfer.flat(region_, staging_).range(done, 0, part);
            PEGA_ASSIGN(const Completion end, channel_.submit_wait(transfer));
            PEGA_TRY(end.wait());
            digest = base::crc32c(staging_.address(), part, digest);
            done += part;
        }
        return digest;
    }

private:
    Region& region_;
    Region& staging_;
    Channel& channel_;
};

}  // namespace

Result<void> serve_peer(const FabricOptions& options, const std::string& device_name, std::uint64_t bytes, std::FILE* in,
                        std::FILE* out) {
    PEGA_ASSIGN(const auto fabric, Fabric::open(options));
    PEGA_ASSIGN(Device* const device, fabric->device(device_name));
    PEGA_ASSIGN(Region memory, device->allocate(device->info().kind, bytes, PEGA_REGION_SHARED));
    PEGA_ASSIGN(Region staging, device->allocate(PEGA_MEMORY_HOST, std::min(bytes, kStagingBytes)));
    PEGA_ASSIGN(Channel channel, device->open_channel());
    PEGA_ASSIGN(const auto address, device->address());
    PEGA_ASSIGN(const auto descriptor, memory.export_descriptor());
    std::fprintf(out, "%s %s\n", to_hex(address).c_str(), to_hex(descriptor).c_str());
    std::fflush(out);
    char line[256];
    while (std::fgets(line, sizeof line, in) != nullptr) {
        std::uint64_t length = 0;
        if (std::sscanf(line, "digest %" SCNu64, &length) != 1 || length > bytes)
            return fail(Code::kInvalid, fmt::format("the benchmark asked for \"{}\", expected digest LENGTH", line));
        PEGA_ASSIGN(const std::uint32_t digest, Digester(memory, staging, channel).of(length));
        std::fprintf(out, "%08x\n", digest);
        std::fflush(out);
    }
    return {};
}

Result<std::unique_ptr<PeerProcess>> PeerProcess::start(const std::vector<std::string>& arguments) {
    std::unique_ptr<PeerProcess> peer(new PeerProcess);
    int ends[2] = {-1, -1};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return fail(Code::kNoMemory, "cannot make a socket pair", errno);
    std::string program = "/proc/self/exe";
    std::vector<std::string> words = arguments;
    std::vector<char*> argv = {program.data()};
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    const int started = ::posix_spawn(&peer->pid_, program.c_str(), &actions, nullptr, argv.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    peer->in_ = ::fdopen(ends[0], "r");
    peer->out_ = ::fdopen(::fcntl(ends[0], F_DUPFD_CLOEXEC, 0), "w");
    if (started != 0) {
        peer->pid_ = -1;
        return fail(Code::kNoMemory, "cannot start the other process", started);
    }
    PEGA_ASSIGN(const std::string offer, peer->read_line());
    const std::size_t space = std::min(offer.find(' '), offer.size());
    const auto address = from_hex(offer.substr(0, space));
    const auto descriptor = from_hex(offer.substr(std::min(space + 1, offer.size())));
    if (!address || !descriptor) return fail(Code::kInternal, fmt::format("the other process offers \"{}\"", offer));
    peer->address_ = *address;
    peer->descriptor_ = *descriptor;
    return peer;
}

PeerProcess::~PeerProcess() {
    if (out_ != nullptr) {
        ::shutdown(::fileno(out_), SHUT_WR);
        std::fclose(out_);
    }
    if (in_ != nullptr) std::fclose(in_);
    if (pid_ > 0) ::waitpid(pid_, nullptr, 0);
}

Result<std::string> PeerProcess::read_line() {
    char* line = nullptr;
    std::size_t capacity = 0;
    const ssize_t length = ::getline(&line, &capacity, in_);
    std::string out = length > 0 ? std::string(line, static_cast<std::size_t>(length)) : "";
    std::free(line);
    if (length <= 0) return fail(Code::kPeerLost, "the other process has ended");
    while (!out.empty() && out.back() == '\n') out.pop_back();
    return out;
}

Result<std::uint32_t> PeerProcess::digest(std::uint64_t length) {
    std::fprintf(out_, "digest %" PRIu64 "\n", length);
    std::fflush(out_);
    PEGA_ASSIGN(const std::string answer, read_line());
    char* end = nullptr;
    const unsigned long value = std::strtoul(answer.c_str(), &end, 16);
    if (answer.empty() || *end != 0) return fail(Code::kInternal, fmt::format("the other process answers \"{}\"", answer));
    return static_cast<std::uint32_t>(value);
}

}  // namespace pegaflow::cli

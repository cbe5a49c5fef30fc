// SPDX-License-Identifier: Apache-2.0
// stream_order.cpp - a client whose stream is held up while it saves: the server must not read before the exported event.
//
//   stream_order --endpoint URL [DEVICE]     against a server that runs
//   stream_order --serve PROGRAM [DEVICE]    starts PROGRAM as the server
//
// In each round the client queues on a held stream: overwrite the blocks, record the event. It saves with that event, lets the
// blocks be overwritten once more, and loads them back: the bytes decide. Ends with 0, with 77 where there is no such GPU.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "pegaflow/abi/ext/stream.h"
#include "pegaflow/client.hpp"
#include "pegaflow/transfer.hpp"
#include "tests/torture/cuda_soak/driver.hpp"

namespace pegaflow {
namespace {

constexpr int kRounds = 4;
constexpr std::uint32_t kBlocks = 8;
constexpr std::uint64_t kBlockBytes = 1 << 20;
constexpr auto kHold = std::chrono::milliseconds(300);
constexpr auto kPatience = std::chrono::seconds(60);
constexpr unsigned char kBefore = 0x10, kSaved = 0x40, kAfter = 0x70;  // and the round

int free_port() {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    ::bind(fd, reinterpret_cast<sockaddr*>(&address), length);
    ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
    ::close(fd);
    return ntohs(address.sin_port);
}

// `pegaflow serve` in a process of its own; ends with its scope. Which way it copies does not matter: it measures none.
class ServerProcess {
public:
    explicit ServerProcess(const std::string& program)
        : endpoint_(fmt::format("127.0.0.1:{}", free_port())),
          config_(
              fmt::format("{}/pegaflow_stream_order_{}.toml", std::filesystem::temp_directory_path().string(), ::getpid())) {
        std::ofstream(config_) << "[module.cuda]\ncalibrate = \"off\"\n";
        std::vector<std::string> words = {program,   "serve",          "--config",    config_,       "--server-listen",
                                          endpoint_, "--admin-listen", "127.0.0.1:0", "--pool-size", "64mb"};
        std::vector<char*> arguments;
        for (std::string& word : words) arguments.push_back(word.data());
        arguments.push_back(nullptr);
        if (::posix_spawn(&pid_, program.c_str(), nullptr, nullptr, arguments.data(), environ) != 0) pid_ = -1;
    }
    ~ServerProcess() {
        if (pid_ >= 0) {
            ::kill(pid_, SIGTERM);
            ::waitpid(pid_, nullptr, 0);
        }
        ::unlink(config_.c_str());
    }
    ServerProcess(const ServerProcess&) = delete;
    ServerProcess& operator=(const ServerProcess&) = delete;
    const std::string& endpoint() const noexcept { return endpoint_; }

private:
    std::string endpoint_, config_;
    pid_t pid_ = -1;
};

class OrderedClient {
public:
    OrderedClient(Device& device, const soak::HeldGpu& gpu, const std::string& endpoint)
        : device_(device),
          events_(*static_cast<const pega_ext_stream*>(device.extension(PEGA_EXT_STREAM))),
          stream_(gpu),
          endpoint_(endpoint) {}
    ~OrderedClient() {
        if (event_ != nullptr) events_.destroy(event_);
    }
    OrderedClient(const OrderedClient&) = delete;
    OrderedClient& operator=(const OrderedClient&) = delete;

    Result<void> run() {
        PEGA_TRY(set_up());
        for (int i = 0; i < kRounds; ++i) PEGA_TRY(round(static_cast<unsigned char>(i)));
        return client_->unregister_instance(kInstance);
    }

private:
    static constexpr const char* kInstance = "stream-order";

    Result<void> set_up() {
        PEGA_ASSIGN(memory_, device_.allocate(PEGA_MEMORY_GPU, kBlocks * kBlockBytes, PEGA_REGION_SHARED));
        PEGA_ASSIGN(copy_, device_.allocate(PEGA_MEMORY_HOST, kBlocks * kBlockBytes));
        PEGA_ASSIGN(channel_, device_.open_channel());
        exported_.resize(64);
        std::uint64_t length = 0;
        if (events_.create(device_.handle(), PEGA_EVENT_SHARED, &event_) != PEGA_OK ||
            events_.export_event(event_, exported_.data(), exported_.size(), &length) != PEGA_OK) {
            return fail(Code::kUnsupported, "an event cannot be exported");
        }
        PEGA_ASSIGN(client_, Client::connect({.endpoint = endpoint_, .connect_timeout = kPatience}));
        WorkerRegistration worker;
        worker.instance_id = kInstance;
        worker.name_space = kInstance;
        PEGA_ASSIGN(const auto handle, memory_.export_descriptor());
        MemoryDescription memory{PEGA_MEMORY_GPU, PEGA_SOURCE_IPC, device_.info().uuid, "", nullptr, 0, memory_.length()};
        memory.handle.assign(reinterpret_cast<const char*>(handle.data()), handle.size());
        worker.layers.push_back({"layer", memory, kBlocks, kBlockBytes});
        return client_->register_worker(worker);
    }

    Result<void> fill(unsigned char value) {
        if (!stream_.fill(memory_.address(), value, memory_.length())) return fail(Code::kInternal, "cannot write GPU memory");
        return {};
    }

    Result<void> round(unsigned char number) {
        PEGA_TRY(fill(kBefore + number));
        stream_.wait();
        if (!stream_.hold(kHold)) return fail(Code::kUnsupported, "a stream cannot be held");
        PEGA_TRY(fill(kSaved + number));
        if (events_.signal(event_, stream_.handle()) != PEGA_OK) return fail(Code::kInternal, "an event cannot be recorded");
        PEGA_TRY(save(number));
        if (!stream_.passed()) return fail(Code::kInternal, "the save ended before the event it was to wait for");
        PEGA_TRY(fill(kAfter + number));
        stream_.wait();
        PEGA_TRY(load());
        return compare(kSaved + number);
    }

    Result<void> save(unsigned char number) {
        ids_.clear();
        hashes_.clear();
        for (std::uint32_t i = 0; i < kBlocks; ++i) {
            ids_.push_back(i);
            hashes_.push_back(fmt::format("{:08x}{:04x}{:04x}", ::getpid(), number, i));
        }
        const std::vector<std::string_view> views(hashes_.begin(), hashes_.end());
        const SaveLayer layers[] = {{"layer", ids_, views}};
        SaveRequest request;
        request.instance_id = kInstance;
        request.layers = layers;
        request.wait_event = {exported_.data(), exported_.size()};
        PEGA_ASSIGN(const SaveOutcome saved, client_->save(request));
        if (saved.bytes != memory_.length()) return fail(Code::kInternal, fmt::format("{} bytes were saved", saved.bytes));
        return {};
    }

    Result<void> load() {
        const std::vector<std::string_view> views(hashes_.begin(), hashes_.end());
        QueryRequest query;
        query.instance_id = kInstance;
        query.hashes = views;
        query.request_id = "stream-order";
        PEGA_ASSIGN(const QueryOutcome found, client_->query(query));
        if (found.hit_blocks != kBlocks || !found.lease)
            return fail(Code::kInternal, fmt::format("{} of {} blocks were found", found.hit_blocks, kBlocks));
        PEGA_ASSIGN(const LoadState state, LoadState::create());
        const std::string_view names[] = {"layer"};
        const std::span<const std::string_view> groups[] = {names};
        const std::span<const std::uint32_t> targets[] = {ids_};
        const LeaseLoad loads[] = {{*found.lease, targets}};
        LoadRequest request;
        request.instance_id = kInstance;
        request.layer_groups = groups;
        request.loads = loads;
        PEGA_TRY(client_->load(request, state.shm_name()));
        return state.wait(kPatience);
    }

    Result<void> compare(unsigned char wanted) {
        Transfer transfer;
        transfer.flat(memory_, copy_).range(0, 0, memory_.length());
        PEGA_ASSIGN(const Completion done, channel_.submit_wait(transfer));
        PEGA_TRY(done.wait());
        const auto* bytes = static_cast<const unsigned char*>(copy_.address());
        const auto wrong = std::count_if(bytes, bytes + memory_.length(), [wanted](unsigned char b) { return b != wanted; });
        if (wrong != 0) {
            return fail(Code::kCorrupt,
                        fmt::format("{} bytes are not those that were written before the event: {:#x}, expected "
                                    "{:#x}",
                                    wrong, bytes[0], wanted));
        }
        return {};
    }

    Device& device_;
    const pega_ext_stream& events_;
    soak::HeldStream stream_;
    std::string endpoint_;
    Region memory_, copy_;
    Channel channel_;
    pega_event* event_ = nullptr;
    std::string exported_;
    std::unique_ptr<Client> client_;
    std::vector<std::uint32_t> ids_;
    std::vector<std::string> hashes_;
};

int run(const std::string& how, const std::string& where, const std::string& name) {
    FabricOptions options{.backends = {"cuda"}};
    options.options["cuda"]["calibrate"] = "off";
    const auto fabric = Fabric::open(options);
    const auto device = fabric ? (*fabric)->device(name) : Result<Device*>(fail(Code::kNotFound, fabric.error().message));
    const auto gpu = device ? soak::HeldGpu::open(name) : nullptr;
    if (!gpu) {
        fmt::print("stream_order: skipped: {}\n", device ? "the driver cannot be asked" : device.error().message);
        return 77;
    }
    std::unique_ptr<ServerProcess> server;
    if (how == "--serve") server = std::make_unique<ServerProcess>(where);
    const auto ordered = OrderedClient(**device, *gpu, server ? server->endpoint() : where).run();
    fmt::print("stream_order: {}\n",
               ordered ? fmt::format("{} rounds in order", kRounds) : "FAILED: " + ordered.error().message);
    return ordered ? 0 : 1;
}

}  // namespace
}  // namespace pegaflow

int main(int count, char** words) {
    const std::string how = count > 1 ? words[1] : "";
    if (count < 3 || count > 4 || (how != "--endpoint" && how != "--serve")) {
        fmt::print(stderr, "usage: stream_order --endpoint URL | --serve PROGRAM [DEVICE]\n");
        return 2;
    }
    return pegaflow::run(how, words[2], count == 4 ? words[3] : "cuda:0");
}

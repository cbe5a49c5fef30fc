// SPDX-License-Identifier: Apache-2.0
// client.hpp - a process's connection to `pegaflow serve`: the engine's operations over gRPC, with deadlines, reconnect and
// re-registration after a server restart. Part of libpegaflow_client, which carries gRPC inside; no gRPC type shows here.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pegaflow/engine.hpp"
#include "pegaflow/result.hpp"

namespace pegaflow {

struct ClientOptions {
    std::string endpoint = "http://127.0.0.1:50055";  // scheme optional
    std::chrono::milliseconds connect_timeout{5000};
    std::chrono::milliseconds call_timeout{30000};  // of every call that has no deadline of its own
    bool reconnect = true;  // after a server restart: connect again, repeat registrations and the session
};

// How a worker's blocks are best copied: with the device's copy engines, or with a kernel that gathers and scatters. A hint of
// the existing service's clients, which this server takes and does not need: its back ends choose by what they measured.
enum class TransferMode : std::uint32_t { kDirect = 0, kKernel = 1 };

// What a registration over the wire may say beside the worker.
struct RegisterOptions {
    TransferMode transfer_mode = TransferMode::kDirect;
    // Instead of the layers' `memory`, one a layer: pickled CudaIPCWrappers, which the server decodes and never executes.
    std::vector<std::string> wrapper_bytes;
};

// The object in shared memory in which the server reports a load's outcome. Created and unlinked by the client. Layout and
// name are those of the existing PegaFlow ("pega_load_<32 hex digits>", 32 bytes).
class LoadState {
public:
    static Result<LoadState> create();
    LoadState(LoadState&&) noexcept;
    LoadState& operator=(LoadState&&) noexcept;
    ~LoadState();  // unmaps and unlinks

    const std::string& shm_name() const noexcept;
    std::int64_t state() const noexcept;  // 0 pending, 1 success, -1 error; acquire
    bool ready() const noexcept { return state() != 0; }
    // Waits for an end; kInternal when the load failed. After kDeadlineExceeded the load goes on, and writes to its
    // destination: that is the caller's again when `ready`, which Client::cancel_load brings about.
    Result<void> wait(std::chrono::nanoseconds timeout) const;

private:
    struct Mapping;
    explicit LoadState(std::unique_ptr<Mapping> mapping);
    std::unique_ptr<Mapping> mapping_;
};

class Client {
public:
    // Connects (within connect_timeout); kPeerLost when nobody answers there.
    static Result<std::unique_ptr<Client>> connect(ClientOptions options = {});
    ~Client();  // ends the session

    const std::string& endpoint() const noexcept;
    Result<std::string> health();  // the server's version
    // Opens the session that ties the instance's life to this process: when it dies the server frees what it held. Another
    // call replaces the session.
    Result<void> start_session(std::string instance_id, std::string name_space, std::uint32_t tp_size,
                               std::uint32_t world_size);

    // Repeated after a reconnect. kInvalid for memory that has no meaning in another process (an address).
    Result<void> register_worker(const WorkerRegistration& worker, const RegisterOptions& options = {});
    Result<void> unregister_instance(std::string_view instance_id);
    // After kDeadlineExceeded or kPeerLost the server may read the source for a moment yet; no block comes of that.
    Result<SaveOutcome> save(const SaveRequest& request);
    Result<QueryOutcome> query(const QueryRequest& request);
    Result<void> release(const LeaseId& lease);
    // Starts a load; the outcome arrives in `state` (LoadState::shm_name). The deadline is that of the call and of the copy.
    Result<void> load(const LoadRequest& request, std::string_view load_state_shm);
    // Asks a load to end early. Its state tells when no byte moves any more. kNotFound when it is over.
    Result<void> cancel_load(std::string_view instance_id, std::string_view load_state_shm);
    Result<void> shutdown_server();

private:
    struct State;
    explicit Client(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace pegaflow

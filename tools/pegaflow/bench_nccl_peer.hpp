// SPDX-License-Identifier: Apache-2.0
// bench_nccl_peer.hpp - the other process of `bench nccl`: this program again, told what to do over a pipe.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tools/pegaflow/bench_nccl_end.hpp"

namespace pegaflow::cli {

enum class PeerTask : std::uint32_t { kFill, kImage, kJoin, kPlain };

// One request; the peer answers each with how it ended.
struct PeerRequest {
    PeerTask task = PeerTask::kFill;
    std::uint32_t pattern = 0;  // kFill: else poison
    std::uint64_t seed = 0;
    PlainPlan plan;                   // kPlain
    nccl_backend::UniqueId unique{};  // kJoin
};

// The started peer, its address and its region's descriptor. The destructor ends it.
class NcclPeer {
public:
    // `arguments` follow the program's name; the hidden option that makes it serve is added.
    static Result<std::unique_ptr<NcclPeer>> start(std::vector<std::string> arguments, std::uint64_t bytes);
    ~NcclPeer();

    // Asks, and waits for the answer.
    Result<void> ask(const PeerRequest& request);
    Result<void> begin(const PeerRequest& request);  // only asks
    Result<void> wait();                             // only waits
    // The peer's memory as it was at its last kImage.
    const std::byte* image() const noexcept { return image_; }
    const std::vector<std::byte>& address() const noexcept { return address_; }
    const std::vector<std::byte>& descriptor() const noexcept { return descriptor_; }

private:
    NcclPeer() = default;
    Result<void> take(std::vector<std::byte>& out);

    int pid_ = -1, to_ = -1, from_ = -1, shared_ = -1;
    std::byte* image_ = nullptr;
    std::uint64_t bytes_ = 0;
    std::vector<std::byte> address_, descriptor_;
};

// What the peer does until its pipe ends. `pipes` is the value of the hidden option.
Result<void> serve_nccl_peer(NcclEnd& end, const std::string& pipes);

}  // namespace pegaflow::cli

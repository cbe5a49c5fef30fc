// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/bench_nccl_end.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "backends/cuda/driver.hpp"

namespace pegaflow::cli {

using nccl_backend::Nccl;

// The context stays current on the thread that made this, which is the only one that calls.
struct NcclEnd::Plain {
    const cuda_backend::Driver* driver = nullptr;
    const Nccl* nccl = nullptr;
    cuda_backend::Device gpu = 0;
    cuda_backend::Context context = nullptr;
    cuda_backend::Stream stream = nullptr;
    nccl_backend::Comm comm = nullptr;

    ~Plain() {
        if (comm != nullptr) nccl->ncclCommAbort(comm);
        if (stream != nullptr) driver->cuStreamDestroy_v2(stream);
        if (context == nullptr) return;
        driver->cuCtxPopCurrent_v2(&context);
        driver->cuDevicePrimaryCtxRelease_v2(gpu);
    }
};

Result<std::unique_ptr<NcclEnd>> NcclEnd::open(const FabricOptions& options, const std::string& device, std::uint64_t bytes) {
    std::unique_ptr<NcclEnd> end(new NcclEnd);
    PEGA_ASSIGN(end->fabric_, Fabric::open(options));
    PEGA_ASSIGN(end->device_, end->fabric_->device(device));
    PEGA_ASSIGN(end->region_, end->device_->allocate(PEGA_MEMORY_GPU, bytes));
    PEGA_ASSIGN(end->image_, end->device_->allocate(PEGA_MEMORY_HOST, bytes));
    PEGA_ASSIGN(end->self_, end->device_->open_channel());
    return end;
}

NcclEnd::~NcclEnd() {
    plain_.reset();
    self_ = {};
    region_ = {};
    image_ = {};
    fabric_.reset();
}

Result<void> NcclEnd::copy(bool to_image) {
    Transfer transfer;
    transfer.flat(region_, image_).range(0, 0, region_.length());
    if (!to_image) transfer.read();
    PEGA_ASSIGN(const Completion done, self_.submit_wait(transfer));
    PEGA_TRY(done.wait());
    return {};
}

Result<void> NcclEnd::fill(bool pattern, std::uint64_t seed) {
    auto* words = static_cast<std::uint64_t*>(image_.address());
    if (pattern) {
        for (std::uint64_t i = 0; i < image_.length() / 8; ++i) words[i] = (i + seed) * 0x9e3779b97f4a7c15ULL;
    } else {
        std::memset(words, 0xEE, image_.length());
    }
    return copy(false);
}

Result<const std::byte*> NcclEnd::image() {
    PEGA_TRY(copy(true));
    return static_cast<const std::byte*>(image_.address());
}

Result<void> NcclEnd::join(const nccl_backend::UniqueId& id, int rank) {
    std::string why;
    auto plain = std::make_unique<Plain>();
    plain->driver = cuda_backend::Driver::get(&why);
    plain->nccl = Nccl::get(&why);
    if (plain->driver == nullptr || plain->nccl == nullptr) return fail(Code::kUnsupported, why);
    const auto& driver = *plain->driver;
    int result = driver.cuDeviceGet(&plain->gpu, static_cast<int>(device_->info().index));
    if (result == 0) result = driver.cuDevicePrimaryCtxRetain(&plain->context, plain->gpu);
    if (result == 0) result = driver.cuCtxPushCurrent_v2(plain->context);
    if (result == 0) result = driver.cuStreamCreateWithPriority(&plain->stream, cuda_backend::kStreamNonBlocking, 0);
    if (result != 0) return fail(Code::kInternal, "plain NCCL: no stream on the GPU", result);
    nccl_backend::Config config;
    config.blocking = 1;
    const int joined = plain->nccl->ncclCommInitRankConfig(&plain->comm, 2, id, rank, &config);
    if (joined != nccl_backend::kNcclSuccess)
        return fail(Code::kPeerLost, fmt::format("plain NCCL: no communicator: {}", plain->nccl->ncclGetErrorString(joined)),
                    joined);
    rank_ = rank;
    plain_ = std::move(plain);
    return {};
}

Result<void> NcclEnd::plain(const PlainPlan& plan) {
    constexpr std::uint64_t kGroup = 32;
    const Nccl& nccl = *plain_->nccl;
    auto* base = static_cast<std::byte*>(region_.address());
    int result = nccl_backend::kNcclSuccess;
    for (std::uint32_t i = 0; i < plan.iterations; ++i) {
        for (std::uint64_t first = 0; first < plan.messages && result == 0; first += kGroup) {
            result = nccl.ncclGroupStart();
            for (std::uint64_t m = first; m < std::min(first + kGroup, plan.messages) && result == 0; ++m) {
                std::byte* at = base + m * plan.bytes;
                result = plan.sends
                             ? nccl.ncclSend(at, plan.bytes, nccl_backend::kNcclUint8, 1 - rank_, plain_->comm, plain_->stream)
                             : nccl.ncclRecv(at, plan.bytes, nccl_backend::kNcclUint8, 1 - rank_, plain_->comm, plain_->stream);
            }
            const int ended = nccl.ncclGroupEnd();
            if (result == 0) result = ended;
        }
    }
    if (result == 0) result = plain_->driver->cuStreamSynchronize(plain_->stream);
    if (result != 0) return fail(Code::kInternal, fmt::format("plain NCCL: {}", nccl.ncclGetErrorString(result)), result);
    return {};
}

}  // namespace pegaflow::cli

// SPDX-License-Identifier: Apache-2.0
#include "side.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <random>

namespace pegaflow::nccl_test {
namespace {

// A set-up that fails says why, by an exception that GoogleTest reports.
template <class T>
T must(Result<T> result, const char* what) {
    if (!result) throw std::runtime_error(std::string(what) + ": " + result.error().message);
    return std::move(*result);
}

FabricOptions only_nccl(std::map<std::string, std::string> options) {
    FabricOptions out;
    out.backends = {"nccl"};
    out.options["nccl"] = std::move(options);
    return out;
}

}  // namespace

std::string prepare() {
    if (::access(FAKE_DRIVER, R_OK) == 0 && ::access(FAKE_NCCL, R_OK) == 0) {
        ::setenv("PEGAFLOW_LIBCUDA", FAKE_DRIVER, 0);
        ::setenv("PEGAFLOW_LIBNCCL", FAKE_NCCL, 0);
    }
    const auto fabric = Fabric::open(only_nccl({}));
    if (!fabric) return fabric.error().message;
    if ((*fabric)->devices().size() < 2) return "NCCL joins different GPUs, and there is only one here";
    return "";
}

Side::Side(int gpu, std::uint64_t bytes, std::map<std::string, std::string> options, std::uint32_t kind, std::uint32_t flags) {
    fabric_ = must(Fabric::open(only_nccl(std::move(options))), "open the fabric");
    device_ = must(fabric_->device("nccl:" + std::to_string(gpu)), "open the device");
    region_ = must(device_->allocate(kind, bytes, flags), "allocate");
    image_ = must(device_->allocate(PEGA_MEMORY_HOST, bytes), "allocate the image");
    self_ = must(device_->open_channel(), "open the channel to itself");
}

Side::~Side() {
    self_ = {};
    region_ = {};
    image_ = {};
}

Channel Side::connect(const std::vector<std::byte>& address) { return must(device_->open_channel(address), "open a channel"); }
Channel Side::connect(Side& to) { return connect(to.address()); }
Region Side::import(const std::vector<std::byte>& descriptor) { return must(device_->import_region(descriptor), "import"); }
std::vector<std::byte> Side::address() { return must(device_->address(), "address"); }
std::vector<std::byte> Side::descriptor() { return must(region_.export_descriptor(), "export"); }

void Side::copy(bool to_region) {
    if (region_.kind() == PEGA_MEMORY_HOST) {
        void* to = to_region ? region_.address() : image_.address();
        std::memcpy(to, to_region ? image_.address() : region_.address(), region_.length());
        return;
    }
    Transfer transfer;
    transfer.flat(region_, image_).range(0, 0, region_.length());
    if (to_region) transfer.read();
    must(run(self_, transfer), "copy");
}

void Side::write(const std::vector<std::uint8_t>& bytes) {
    std::memcpy(image_.address(), bytes.data(), bytes.size());
    copy(true);
}

std::vector<std::uint8_t> Side::read() {
    copy(false);
    const auto* bytes = static_cast<const std::uint8_t*>(image_.address());
    return {bytes, bytes + region_.length()};
}

std::vector<std::uint8_t> Side::pattern(std::uint64_t bytes, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<std::uint8_t> out(bytes);
    for (std::uint64_t i = 0; i + 8 <= bytes; i += 8) {
        const std::uint64_t word = random();
        std::memcpy(out.data() + i, &word, sizeof word);
    }
    return out;
}

Result<std::uint64_t> run(Channel& channel, Transfer& transfer) {
    auto done = channel.submit_wait(transfer);
    if (!done) return fail(done.error());
    return done->wait_for(std::chrono::seconds(30));
}

}  // namespace pegaflow::nccl_test

#if defined(__SANITIZE_ADDRESS__)
// The leak sanitizer of GCC 12 crashes when it looks for pointers in the thread-local memory of libraries that were opened at
// run time, as those are that stand for libcuda and libnccl.
extern "C" const char* __lsan_default_options() { return "use_tls=0"; }
#endif

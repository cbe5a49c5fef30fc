// SPDX-License-Identifier: Apache-2.0
// Our own modules against a core of another minor version: compiled against headers whose structs have all grown, they serve
// the core of 1.0; compiled as they are, they serve a core that has grown (unit_core_grown).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "pegaflow/abi/ext/stream.h"
#include "pegaflow/transfer.hpp"

namespace pegaflow {
namespace {

constexpr std::uint64_t kPage = 1024;
constexpr std::uint64_t kPages = 4;

struct Module {
    const char* backend;
    const char* wrapper;  // "" = none
};

class GrownModulesTest : public ::testing::TestWithParam<Module> {
protected:
    GrownModulesTest() : path_(std::getenv(kPath) != nullptr ? std::getenv(kPath) : "") {
        ::setenv(kPath, PEGA_TEST_OTHER_MODULES, 1);
    }
    ~GrownModulesTest() override { ::setenv(kPath, path_.c_str(), 1); }
    void SetUp() override {
        FabricOptions options{.backends = {GetParam().backend}};
        if (*GetParam().wrapper != '\0') options.wrap = {{GetParam().wrapper, GetParam().backend}};
        auto fabric = Fabric::open(options);
        ASSERT_TRUE(fabric) << fabric.error().message;
        fabric_ = std::move(*fabric);
        for (const ModuleReport& module : fabric_->modules()) {
            if (module.name == GetParam().backend) {
                ASSERT_TRUE(module.path.starts_with(PEGA_TEST_OTHER_MODULES)) << module.path;
            }
        }
        auto device = fabric_->device(std::string(GetParam().backend) + ":0");
        ASSERT_TRUE(device) << device.error().message;
        device_ = *device;
        auto from = device_->allocate(PEGA_MEMORY_HOST, kPage * kPages);
        auto to = device_->allocate(PEGA_MEMORY_HOST, kPage * kPages);
        ASSERT_TRUE(from) << from.error().message;
        ASSERT_TRUE(to) << to.error().message;
        from_ = std::move(*from);
        to_ = std::move(*to);
        EXPECT_EQ(from_.length(), kPage * kPages);
        auto* bytes = static_cast<unsigned char*>(from_.address());
        for (std::uint64_t i = 0; i < kPage * kPages; ++i) bytes[i] = static_cast<unsigned char>(i * 7 + i / kPage);
        auto channel = device_->open_channel();
        ASSERT_TRUE(channel) << channel.error().message;
        channel_ = std::move(*channel);
    }
    // Two spans: the second begins where the other side's struct ends.
    void add_halves(Transfer& transfer) const {
        const std::vector<std::uint64_t> index = {0, 1};
        transfer.indices(index, index);
        for (const std::uint64_t half : {std::uint64_t{0}, kPage * 2}) {
            pega_span span{};
            span.local_region = from_.handle();
            span.remote_region = to_.handle();
            span.local_base = span.remote_base = half;
            span.local_stride = span.remote_stride = span.page_bytes = kPage;
            span.segments = 1;
            transfer.span(span);
        }
    }
    void moves_all(Transfer& transfer) {
        auto completion = channel_.submit(transfer);
        ASSERT_TRUE(completion) << completion.error().message;
        const auto bytes = completion->wait();
        ASSERT_TRUE(bytes) << bytes.error().message;
        EXPECT_EQ(*bytes, kPage * kPages);
        EXPECT_EQ(completion->record().first_bad, PEGA_NO_BAD);
        EXPECT_EQ(std::memcmp(from_.address(), to_.address(), kPage * kPages), 0);
    }

    static constexpr const char* kPath = "PEGAFLOW_PLUGIN_PATH";
    const std::string path_;
    std::unique_ptr<Fabric> fabric_;
    Device* device_ = nullptr;
    Region from_, to_;
    Channel channel_;
};

TEST_P(GrownModulesTest, TakesBatchesOfBothFormats) {
    Transfer spans;
    add_halves(spans);
    moves_all(spans);
    std::memset(to_.address(), 0, kPage * kPages);
    Transfer flat;
    flat.flat(from_, to_);
    for (std::uint64_t i = 0; i < kPages; ++i) flat.range(i * kPage, i * kPage, kPage);
    moves_all(flat);
}

TEST_P(GrownModulesTest, TakesTheOptionsItHasExtensionsFor) {
    const auto* stream = static_cast<const pega_ext_stream*>(device_->extension(PEGA_EXT_STREAM));
    Transfer transfer;
    add_halves(transfer);
    transfer.digests();  // a hint to those that compute none
    if (stream == nullptr) return moves_all(transfer);
    pega_event* recorded = nullptr;
    ASSERT_EQ(stream->create(device_->handle(), 0, &recorded), PEGA_OK);
    transfer.record_event(recorded).notify(7);
    moves_all(transfer);
    EXPECT_EQ(stream->query(recorded), PEGA_OK);
    EXPECT_TRUE(device_->wait_notify(7, 1, std::chrono::seconds(20)));
    EXPECT_EQ(transfer.digest_sums().size(), 2U);
    stream->destroy(recorded);
}

INSTANTIATE_TEST_SUITE_P(Ours, GrownModulesTest,
                         ::testing::Values(Module{"host", ""}, Module{"template", ""}, Module{"host", "fault"}),
                         [](const auto& each) {
                             return std::string(each.param.backend) + (*each.param.wrapper != '\0' ? "_in_" : "") +
                                    each.param.wrapper;
                         });

}  // namespace
}  // namespace pegaflow

// SPDX-License-Identifier: Apache-2.0
// fault_fixture.hpp - two regions of a back end inside the plug-in fault, and a channel between them.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pegaflow/transfer.hpp"

namespace pegaflow {

class FaultFixture : public ::testing::Test {
protected:
    static constexpr std::uint64_t kBytes = 4096;
    using Rules = std::map<std::string, std::string>;

    // What the device cannot be opened for; "" when it is open.
    std::string open(const std::string& backend, Rules rules, std::uint32_t local_kind) {
        FabricOptions options{.backends = {backend}, .wrap = {{"fault", backend}}};
        options.options["fault"] = std::move(rules);
        if (backend == "cuda") options.options["cuda"]["calibrate"] = "off";
        auto fabric = Fabric::open(options);
        if (!fabric) return fabric.error().message;
        fabric_ = std::move(*fabric);
        const auto device = fabric_->device(backend + ":0");
        if (!device) return device.error().message;
        device_ = *device;
        local_ = *device_->allocate(local_kind, kBytes);
        remote_ = *device_->allocate(PEGA_MEMORY_HOST, kBytes);
        channel_ = *device_->open_channel();
        return "";
    }
    ~FaultFixture() override {
        channel_ = {};
        local_ = {};
        remote_ = {};
    }
    // A batch of this many bytes from the local side to the remote one.
    static void fill(Transfer& transfer, const Region& from, const Region& to, std::uint64_t bytes = kBytes) {
        transfer.clear().flat(from, to).range(0, 0, bytes);
    }
    static unsigned char* bytes(const Region& region) { return static_cast<unsigned char*>(region.address()); }

    std::unique_ptr<Fabric> fabric_;
    Device* device_ = nullptr;
    Region local_, remote_;
    Channel channel_;
};

}  // namespace pegaflow

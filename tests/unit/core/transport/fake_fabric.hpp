// SPDX-License-Identifier: Apache-2.0
// fake_fabric.hpp - a device of the fake back end with two regions and a channel, for tests.
#pragma once

#include "pegaflow/transfer.hpp"

namespace pegaflow {

struct FakeFabric {
    std::unique_ptr<Fabric> fabric;
    Device* device = nullptr;
    Region local, remote;
    Channel channel;

    // Up to two options of the fake: polls, twice, depth (modules/fake.c).
    explicit FakeFabric(const char* key = "polls", const char* value = "0", const char* other = "twice",
                        const char* its_value = "0") {
        FabricOptions all{.search_path = {PEGA_TEST_MODULES "/fake"}, .backends = {"fake"}};
        all.options["fake"] = {{key, value}, {other, its_value}};
        auto opened = Fabric::open(std::move(all));
        EXPECT_TRUE(opened) << opened.error().message;
        fabric = std::move(*opened);
        device = *fabric->device("fake:0");
        local = *device->allocate(PEGA_MEMORY_HOST, 1 << 16);
        remote = *device->allocate(PEGA_MEMORY_HOST, 1 << 16);
        channel = *device->open_channel();
    }

    // Transfers of this priority stay in flight until let_go.
    static constexpr std::uint32_t kHeld = 98;
    void let_go() { std::atomic_ref(*static_cast<unsigned char*>(local.address())).store(1, std::memory_order_release); }
};

}  // namespace pegaflow

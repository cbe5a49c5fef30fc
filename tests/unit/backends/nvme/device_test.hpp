// SPDX-License-Identifier: Apache-2.0
// device_test.hpp - a device of the nvme back end in the test itself: polled by whoever the test says, with all its accounts
// open.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "backends/nvme/device.hpp"
#include "tests/unit/backends/nvme/kernel.hpp"
#include "tests/unit/backends/nvme/test_file.hpp"

namespace nvme_test {

constexpr std::uint64_t kKiB = 1 << 10, kMiB = 1 << 20;

using Options = std::map<std::string, std::string>;

// Pieces of one file and one memory region; borrowed by the device until its batch has ended.
struct Flat {
    std::vector<std::uint64_t> memory, file, lengths;
    Flat& piece(std::uint64_t memory_offset, std::uint64_t file_offset, std::uint64_t length) {
        memory.push_back(memory_offset);
        file.push_back(file_offset);
        lengths.push_back(length);
        return *this;
    }
};

class NvmeDeviceTest : public ::testing::Test {
protected:
    NvmeDeviceTest() { kernel() = {}; }
    ~NvmeDeviceTest() override {
        if (device != nullptr) nvme_backend::close_device(device);
        kernel() = {};
    }

    pega_status open(const Options& options) {
        std::vector<pega_option> list;
        for (const auto& [key, value] : options) list.push_back({key.c_str(), value.c_str()});
        pega_open_params params{};
        params.size = sizeof params;
        params.flags = PEGA_OPEN_CALLER_POLLS;
        params.option_count = static_cast<std::uint32_t>(list.size());
        params.options = list.data();
        const pega_status status = nvme_backend::open_device(&host, &params, &device);
        if (status == PEGA_OK) channel = open_channel();
        return status;
    }
    pega_channel* open_channel() {
        pega_channel_params params{};
        params.size = sizeof params;
        pega_channel* out = nullptr;
        EXPECT_EQ(nvme_backend::kChannelTable.open(device, &params, &out), PEGA_OK);
        return out;
    }

    pega_region* file(const std::string& path, std::uint64_t length) {
        pega_memory memory{};
        memory.kind = PEGA_MEMORY_FILE;
        memory.source = PEGA_SOURCE_PATH;
        memory.length = length;
        memory.handle = path.data();
        memory.handle_length = path.size();
        return add(memory);
    }
    pega_region* memory(void* address, std::uint64_t length) {
        pega_memory memory{};
        memory.kind = PEGA_MEMORY_HOST;
        memory.source = PEGA_SOURCE_ADDRESS;
        memory.address = address;
        memory.length = length;
        return add(memory);
    }
    pega_region* allocate(std::uint64_t length) {
        pega_memory memory{};
        memory.kind = PEGA_MEMORY_HOST;
        memory.source = PEGA_SOURCE_ALLOCATE;
        memory.length = length;
        return add(memory);
    }

    // The memory is the local side: a READ fills it.
    pega_status submit(const Flat& flat, pega_region* memory, pega_region* file, std::uint32_t op,
                       std::uint64_t user_data = 1) {
        pega_batch batch{};
        batch.size = sizeof batch;
        batch.op = op;
        batch.format = PEGA_FORMAT_FLAT;
        batch.span_size = sizeof(pega_span);
        batch.user_data = user_data;
        batch.local_region = memory;
        batch.remote_region = file;
        batch.local_offsets = flat.memory.data();
        batch.remote_offsets = flat.file.data();
        batch.lengths = flat.lengths.data();
        batch.flat_count = flat.lengths.size();
        return nvme_backend::kChannelTable.submit(channel, &batch);
    }
    // The next record; sleeps in the ring for it, or looks again and again.
    pega_completion next(bool sleeps = true) {
        pega_completion record{};
        record.size = sizeof record;
        const std::uint64_t end = host.now_ns(nullptr) + 60'000'000'000;
        while (host.now_ns(nullptr) < end) {
            const std::uint32_t count = sleeps ? nvme_backend::kWaitTable.wait(device, &record, 1, end)
                                               : nvme_backend::kCompletionTable.poll(device, &record, 1);
            if (count == 1) return record;
        }
        ADD_FAILURE() << "a batch does not end";
        std::abort();  // what it borrows must not go
    }
    pega_completion run(const Flat& flat, pega_region* memory, pega_region* file, std::uint32_t op, bool sleeps = true) {
        EXPECT_EQ(submit(flat, memory, file, op), PEGA_OK);
        return next(sleeps);
    }
    void poll_once() {
        const std::lock_guard polling(device->poll_mutex);
        nvme_backend::pump(*device, 0);
    }

    // Nothing is under way, and all that was taken for it is back.
    void expect_idle() {
        const std::lock_guard polling(device->poll_mutex);
        EXPECT_EQ(device->in_kernel, 0U);
        EXPECT_EQ(device->bytes_moving, 0U);
        EXPECT_EQ(device->free_operations.size(), device->options.depth);
        EXPECT_EQ(device->free_bounces.size(), nvme_backend::kBounces);
        EXPECT_TRUE(device->active.empty());
        EXPECT_TRUE(device->again.empty());
        EXPECT_TRUE(device->unsynced.empty());
        EXPECT_TRUE(device->held_blocks.empty());
        for (const std::uint32_t taken : device->taken_by) EXPECT_EQ(taken, 0U);
        const std::lock_guard lock(device->mutex);
        EXPECT_TRUE(device->incoming.empty());
        for (const auto& open : device->channels) {
            EXPECT_EQ(open->in_flight, 0U);
            EXPECT_EQ(open->free.size(), open->slots.size());
        }
        for (const auto& region : device->regions) EXPECT_EQ(region->in_flight, 0U);
    }

    std::vector<std::string> said;  // in the log
    pega_host host = {
        sizeof(pega_host),
        0,
        this,
        [](void* self, std::uint32_t, const char*, const char* message) {
            static_cast<NvmeDeviceTest*>(self)->said.emplace_back(message);
        },
        [](void*) { return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()); },
        [](void*, const char*) -> const void* { return nullptr; }};
    pega_device* device = nullptr;
    pega_channel* channel = nullptr;

private:
    pega_region* add(pega_memory& memory) {
        memory.size = sizeof memory;
        pega_region* out = nullptr;
        EXPECT_EQ(nvme_backend::kRegionTable.register_memory(device, &memory, &out), PEGA_OK);
        return out;
    }
};

// Where io_uring is not to be had, or not with these options.
#define PEGA_OPEN(...)                                                                              \
    do {                                                                                            \
        if (open(__VA_ARGS__) != PEGA_OK) GTEST_SKIP() << (said.empty() ? "no ring" : said.back()); \
    } while (false)

}  // namespace nvme_test

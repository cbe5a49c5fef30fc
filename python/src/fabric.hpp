// SPDX-License-Identifier: Apache-2.0
// fabric.hpp - what Python's Fabric, Device, Region, Event, Channel and Transfer hold, and who keeps whom alive.
//
// Everything made from a Fabric holds it: it closes when the last of them goes. A Transfer holds its Regions, a Completion
// holds its Transfer and Channel; a Transfer that goes while its batch is in flight waits for the batch, without the
// interpreter lock.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>

#include "array.hpp"
#include "pegaflow/transfer.hpp"

namespace pegaflow::python {

struct FabricHandle {
    ~FabricHandle() {
        unlocked([this] { fabric.reset(); });
    }
    std::unique_ptr<Fabric> fabric;
};
using FabricPtr = std::shared_ptr<FabricHandle>;  // owners: the Python objects made from it

struct DeviceHandle {
    FabricPtr fabric;
    Device* device = nullptr;  // the fabric's
};

struct RegionHandle {
    ~RegionHandle() {
        unlocked([this] { region = Region(); });
    }
    FabricPtr fabric;
    std::string device_name;
    bool read_only = false;
    std::optional<Array> array;  // what was registered, when it is someone's array
    Region region;
};
using RegionPtr = std::shared_ptr<RegionHandle>;  // owners: Python's Region, and Transfers that name it

struct EventHandle {
    ~EventHandle() {
        if (event != nullptr) unlocked([this] { table->destroy(event); });
    }
    FabricPtr fabric;
    const pega_ext_stream* table = nullptr;
    pega_event* event = nullptr;
};
using EventPtr = std::shared_ptr<EventHandle>;  // owners: Python's Event, and Transfers that name it

// How far a batch has come, told by the progress thread.
struct Progress {
    std::mutex mutex;
    std::condition_variable changed;
    std::uint64_t landed_spans = 0;  // guarded by mutex
    bool done = false;               // guarded by mutex
};

struct TransferHandle {
    ~TransferHandle() {
        unlocked([this] { transfer.reset(); });
    }
    // ValueError while in flight.
    Transfer& editable();

    std::vector<RegionPtr> regions;
    std::vector<EventPtr> events;
    std::size_t spans = 0;
    std::chrono::nanoseconds timeout = std::chrono::nanoseconds::max();  // from submit on
    std::shared_ptr<Progress> progress;  // shared with the batch's callbacks; null before the first submit
    std::unique_ptr<Transfer> transfer = std::make_unique<Transfer>();
};
using TransferPtr = std::shared_ptr<TransferHandle>;  // owners: Python's Transfer and its Completion

struct ChannelHandle {
    ~ChannelHandle() {
        unlocked([this] { channel = Channel(); });
    }
    FabricPtr fabric;
    std::mutex mutex;  // submit and close are [serial]
    Channel channel;
};
using ChannelPtr = std::shared_ptr<ChannelHandle>;  // owners: Python's Channel and its Completions

struct CompletionHandle {
    ChannelPtr channel;
    TransferPtr transfer;
    std::shared_ptr<Progress> progress;  // of this batch, shared with its callbacks
    Completion completion;
};

}  // namespace pegaflow::python

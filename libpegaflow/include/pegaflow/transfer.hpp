// SPDX-License-Identifier: Apache-2.0
// transfer.hpp - Fabric, Device, Region, Channel, Transfer, Completion: the C++ face of the transfer abstraction.
//
// A Fabric loads back ends and opens their devices. A Device registers Regions and opens Channels. A Transfer describes one
// batch; submitting it to a Channel gives a Completion, its one terminal outcome. All functions return Result and throw
// nothing. Ownership: a Fabric outlives its Devices' Regions and Channels; Regions outlive the Transfers that name them.
#pragma once

#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pegaflow/abi/backend.h"
#include "pegaflow/abi/ext/stream.h"
#include "pegaflow/result.hpp"

namespace pegaflow {

class Channel;
class Completion;
class Device;
class Fabric;
class Region;
class Transfer;

// One device that a loaded back end offers.
struct DeviceInfo {
    std::string name;     // "host:0", "cuda:1": what Fabric::device takes; back end, colon, index
    std::string backend;  // "host"
    std::uint32_t index = 0;
    std::uint32_t kind = PEGA_MEMORY_HOST;  // PEGA_MEMORY_*
    std::int32_t numa_node = PEGA_NUMA_ANY;
    std::uint64_t memory_bytes = 0;
    std::string uuid;  // "" when there is none
    std::string text;
};

// How an open device does. `problem` is "" when nothing is known to be wrong.
struct DeviceHealth {
    std::string name;
    std::uint64_t in_flight = 0;
    std::uint64_t failures_in_row = 0;  // transfers that ended neither well nor cancelled, since the last good one
    bool stuck = false;                 // nobody polls it any more: its batches do not end
    std::string problem;
};

// A module file that was looked at: loaded, or refused with the reason.
struct ModuleReport {
    std::string path;
    std::string name;     // "" when the file could not be read as a module
    std::string version;  // the module's own
    std::string problem;  // "" = usable; else why not, in words
    std::vector<DeviceInfo> devices;
};

struct FabricOptions {
    // Directories to search, in this order, before the built-in ones (beside the library, the install directory) and after
    // PEGAFLOW_PLUGIN_PATH (colon separated).
    std::vector<std::string> search_path;
    // Back ends to load, in order; empty = every back end that is found. A name in `wrap` is loaded as well.
    std::vector<std::string> backends;
    // Interposers: {"fault", "host"} opens every device of `host` through the module `fault`. Several around one back end lie
    // around each other in this order, the last one outermost.
    std::vector<std::pair<std::string, std::string>> wrap;
    // Options per module: options["fault"]["seed"] = "1".
    std::map<std::string, std::map<std::string, std::string>> options;
};

// Loads back ends, opens devices on first use, and finds the device for a pair of memories. [any] unless said otherwise.
class Fabric {
public:
    // Loads the modules. A module that cannot be used is no error: see `modules`. Errors: kNotFound when a back end that
    // options.backends or options.wrap names does not exist or cannot be used.
    static Result<std::unique_ptr<Fabric>> open(FabricOptions options = {});
    ~Fabric();  // closes all devices, unless they are kept open; regions and channels must be gone

    std::span<const ModuleReport> modules() const noexcept;
    std::span<const DeviceInfo> devices() const noexcept;

    // Opens a device, or returns the one that is open. No device is opened that nobody asked for. kNotFound.
    Result<Device*> device(std::string_view name);
    // The device whose uuid this is (as CUDA prints it, with or without the prefix "GPU-"). kNotFound.
    Result<Device*> device_by_uuid(std::string_view uuid);
    // The device that moves bytes between memory that is local to `local_device` and memory of kind `remote_kind`;
    // kUnsupported.
    Result<Device*> route(std::string_view local_device, std::uint32_t remote_kind);
    // The entry of a module that is no back end (a policy), loaded on first use; valid as long as the Fabric. kNotFound.
    Result<const pega_entry*> module(std::string_view name);
    // What such a module is opened with: its options of FabricOptions, and its host. Valid as long as the Fabric. [any]
    std::vector<pega_option> module_options(std::string_view name) const;
    const pega_host* host() const noexcept;
    // Of the devices that are open, by name. [any]
    std::vector<DeviceHealth> health() const;
    // All modules stay loaded and all devices open until the process ends, also without this object: for whoever has regions
    // and channels that cannot be closed, because a device does not let go of them. [any]
    void keep_open() noexcept;

private:
    struct State;
    explicit Fabric(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

// One open device with its progress engine: a thread of the core that spins while batches are in flight and sleeps otherwise.
class Device {
public:
    virtual ~Device() = default;

    virtual const DeviceInfo& info() const noexcept = 0;
    virtual const pega_capabilities& capabilities() const noexcept = 0;

    // See region.h for the errors. `memory` is borrowed for the call. [any]
    virtual Result<Region> register_memory(const pega_memory& memory) = 0;
    virtual Result<Region> import_region(std::span<const std::byte> descriptor) = 0;
    Result<Region> allocate(std::uint32_t kind, std::uint64_t length, std::uint32_t flags = 0);
    Result<Region> register_address(void* address, std::uint64_t length, std::uint32_t kind = PEGA_MEMORY_HOST);

    // The bytes with which a peer opens a channel to this device. [any]
    virtual Result<std::vector<std::byte>> address() const = 0;
    // Opens a channel to `address`, or to this device itself when it is empty. [any]
    virtual Result<Channel> open_channel(std::span<const std::byte> address = {}, std::uint32_t queue_depth = 0) = 0;

    // An extension table (abi/ext), or null. [any]
    virtual const void* extension(const char* id) const noexcept = 0;
    // The ABI handle, for extension calls.
    virtual pega_device* handle() const noexcept = 0;
    // Waits until `value` has arrived `count` times (abi/ext/notify.h) and takes them. kDeadlineExceeded, kUnsupported. [any]
    virtual Result<void> wait_notify(std::uint32_t value, std::uint64_t count, std::chrono::nanoseconds timeout) = 0;
    virtual DeviceHealth health() const = 0;
};

// Registered bytes. Move-only; the destructor unregisters. All batches that use it must have ended by then.
class Region {
public:
    struct Impl;
    Region() noexcept;
    explicit Region(std::unique_ptr<Impl> impl) noexcept;
    Region(Region&&) noexcept;
    Region& operator=(Region&&) noexcept;
    ~Region();

    explicit operator bool() const noexcept { return impl_ != nullptr; }
    std::uint64_t length() const noexcept;
    std::uint32_t kind() const noexcept;
    void* address() const noexcept;  // null when it has none here
    pega_region* handle() const noexcept;
    // The bytes with which another process imports this region. kUnsupported. [any]
    Result<std::vector<std::byte>> export_descriptor() const;
    // Files (abi/ext/durable.h): makes what ended batches wrote survive a loss of power; gives a range back. Both block.
    // kUnsupported, kRegionLost, kInvalid. [any]
    Result<void> flush() const;
    Result<void> discard(std::uint64_t offset, std::uint64_t length) const;

private:
    std::unique_ptr<Impl> impl_;
};

// A batch under construction, or in flight. Reusable: after the terminal completion, clear() keeps the memory, so that the hot
// path allocates nothing once warm. Not movable while in flight. [serial]
class Transfer {
public:
    struct Impl;
    Transfer();
    Transfer(Transfer&&) noexcept;
    Transfer& operator=(Transfer&&) noexcept;
    ~Transfer();

    // Forgets spans, indices and options; keeps capacity.
    Transfer& clear();
    Transfer& read();   // remote to local
    Transfer& write();  // local to remote (the default)

    // SPANS: the index arrays that all spans share are copied.
    Transfer& indices(std::span<const std::uint64_t> local, std::span<const std::uint64_t> remote);
    Transfer& span(const pega_span& span);
    Transfer& mark_every(std::uint32_t spans);

    // FLAT: one pair of regions and byte ranges. A transfer is either flat or has spans; mixing is refused at submit.
    Transfer& flat(const Region& local, const Region& remote);
    Transfer& range(std::uint64_t local_offset, std::uint64_t remote_offset, std::uint64_t length);

    Transfer& deadline(std::chrono::steady_clock::time_point when);
    Transfer& priority(std::uint32_t priority);
    Transfer& notify(std::uint32_t value);
    // The completion comes when what was written to files is on the medium (abi/ext/durable.h).
    Transfer& durable();
    // SPANS: asks the device for the digests of the pages (abi/ext/digest.h), if it has them at no cost.
    Transfer& digests();
    Transfer& wait_event(pega_event* event);
    Transfer& record_event(pega_event* event);

    // Called for each mark with the number of leading spans that have landed, from the progress thread; must not block.
    Transfer& on_mark(std::function<void(std::uint64_t landed_spans)> callback);
    // Called once with the outcome, from the progress thread, before Completion::wait returns; must not block.
    Transfer& on_done(std::function<void(const pega_completion&)> callback);

    // After the completion with kOk, until clear(): one digest an index, or nothing when the device did not compute them.
    std::span<const std::uint64_t> digest_sums() const noexcept;

    Impl& impl() noexcept { return *impl_; }

private:
    std::unique_ptr<Impl> impl_;
};

// The outcome of one accepted batch. Cheap to move; dropping it does not cancel. Waiting is [any]. co_await resumes on the
// progress thread.
class Completion {
public:
    struct State;
    Completion() noexcept = default;
    explicit Completion(std::shared_ptr<State> state) noexcept;  // shared by the waiter and the progress engine

    bool done() const noexcept;
    // Bytes moved, or the error. Blocks until the terminal completion.
    Result<std::uint64_t> wait() const;
    // As wait, but gives up waiting (not the batch) after `timeout`: kDeadlineExceeded.
    Result<std::uint64_t> wait_for(std::chrono::nanoseconds timeout) const;
    // The terminal record; valid once done().
    const pega_completion& record() const noexcept;

    bool await_ready() const noexcept { return done(); }
    bool await_suspend(std::coroutine_handle<> waiter) const;
    Result<std::uint64_t> await_resume() const { return wait(); }

private:
    std::shared_ptr<State> state_;
};

// An open path. Move-only; the destructor closes and waits for what hardware still holds.
class Channel {
public:
    struct Impl;
    Channel() noexcept;
    explicit Channel(std::unique_ptr<Impl> impl) noexcept;
    Channel(Channel&&) noexcept;
    Channel& operator=(Channel&&) noexcept;
    ~Channel();

    explicit operator bool() const noexcept { return impl_ != nullptr; }
    // PEGA_OK, PEGA_PENDING (connecting), or how it broke. [any]
    pega_status state() const noexcept;
    // Submits; `transfer` stays borrowed until the completion. kQueueFull means nothing started. [serial]
    Result<Completion> submit(Transfer& transfer);
    // Submits, waiting for room while the queue is full, until the transfer's deadline if it has one. [serial]
    Result<Completion> submit_wait(Transfer& transfer);
    // Asks for the batch to end early (abi/ext/cancel.h). [any]
    Result<void> cancel(Transfer& transfer);
    // Closes; see channel.h. kRetry when hardware still works at the deadline. [serial]
    Result<void> close(std::chrono::nanoseconds timeout);

private:
    std::unique_ptr<Impl> impl_;
};

}  // namespace pegaflow

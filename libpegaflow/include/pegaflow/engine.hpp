// SPDX-License-Identifier: Apache-2.0
// engine.hpp - the cache engine: what is saved, where it is, and getting it back; usable in process, no server needed.
//
// A serving replica is an *instance*; each of its workers registers the KV memory of its layers. When all `world_size` workers
// are there the instance seals, and blocks can be saved and loaded. A block is named by its content hash; it is a hit only when
// every slot (layer x rank, or page shard) of it was saved. Two layouts never share a block: the layout fingerprint of the
// instance is part of every key.
//
// All functions are [any] and throw nothing. Views in requests are borrowed for the call unless said otherwise.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pegaflow/abi/ext/stream.h"
#include "pegaflow/result.hpp"
#include "pegaflow/transfer.hpp"

namespace pegaflow {

inline constexpr std::size_t kMaxHashBytes = 64;       // of one block hash
inline constexpr std::uint32_t kNoBlock = UINT32_MAX;  // a load position without a destination

// Where a worker's KV memory is, in plain fields.
struct MemoryDescription {
    std::uint32_t kind = 0;    // PEGA_MEMORY_HOST or PEGA_MEMORY_GPU
    std::uint32_t source = 0;  // PEGA_SOURCE_ADDRESS (in process), PEGA_SOURCE_SHM, PEGA_SOURCE_IPC
    std::string device_uuid;   // the GPU's; "" = the host
    std::string handle;        // shm name or IPC handle bytes
    void* address = nullptr;   // PEGA_SOURCE_ADDRESS
    std::uint64_t offset = 0;  // bytes from the start of the named object to block 0
    std::uint64_t length = 0;  // bytes from block 0 that belong to the layer
};

// One layer's KV memory on one worker. Address of segment s of block b:
//   block 0 + b * block_stride + s * kv_stride
struct LayerRegistration {
    std::string name;
    MemoryDescription memory;
    std::uint64_t num_blocks = 0;
    std::uint64_t bytes_per_block = 0;     // of one segment of one block (K alone when K and V are apart)
    std::uint64_t kv_stride_bytes = 0;     // from segment 0 to segment 1; 0 with one segment
    std::uint32_t segments = 1;            // 1 or 2
    std::uint64_t block_stride_bytes = 0;  // 0 = follows from the other fields
    std::uint32_t storage_group = 0;       // hybrid models: layers of one group are stored and found together
};

struct WorkerRegistration {
    std::string instance_id;
    std::string name_space;
    std::uint32_t tp_rank = 0;
    std::uint32_t tp_size = 1;
    std::uint32_t pp_rank = 0;
    std::uint32_t world_size = 1;
    std::int32_t device_id = 0;  // the caller's name for the worker's device; unique within the instance
    bool page_first = false;     // one page per block and shard: all its layers side by side
    std::string dtype;  // part of the layout fingerprint, the same on all workers; free text ("bfloat16"), "" = not told
    std::vector<LayerRegistration> layers;
};

struct SaveLayer {
    std::string_view layer;
    std::span<const std::uint32_t> block_ids;
    std::span<const std::string_view> hashes;  // one per block id
};

struct SaveRequest {
    std::string_view instance_id;
    std::uint32_t tp_rank = 0;
    std::uint32_t pp_rank = 0;
    std::int32_t device_id = 0;
    std::span<const SaveLayer> layers;  // each layer at most once
    std::string_view wait_event;        // exported event (abi/ext/stream.h) to wait for before reading the source; "" = none
    pega_event* local_event = nullptr;  // the same for a caller in this process; borrowed until done
    std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
};

struct SaveOutcome {
    std::uint64_t saved_blocks = 0;      // block slots copied by this call
    std::uint64_t duplicate_blocks = 0;  // skipped: resident already, or being saved by someone else
    std::uint64_t bytes = 0;
};

using LeaseId = std::array<std::byte, 16>;

struct QueryRequest {
    std::string_view instance_id;
    std::span<const std::string_view> hashes;  // prefix order
    std::string_view request_id;
    std::uint32_t group = 0;                             // storage group
    bool whole_prefix_only = false;                      // group > 0: all or nothing, no lease for a part
    std::optional<std::chrono::nanoseconds> lease_time;  // null = the engine's default
};

struct QueryOutcome {
    bool loading = false;                      // a slower tier is at work: ask again with the same request_id
    std::uint64_t hit_blocks = 0;              // group 0: length of the prefix found
    std::vector<std::uint32_t> hit_positions;  // group > 0, membership: ascending positions found
    std::optional<LeaseId> lease;              // pins the hits; only when there is at least one
};

// Destinations for one lease: for each layer group, one block id (or kNoBlock) per leased block.
struct LeaseLoad {
    LeaseId lease{};
    std::span<const std::span<const std::uint32_t>> block_ids_by_group;
};

struct LoadRequest {
    std::string_view instance_id;
    std::uint32_t tp_rank = 0;
    std::int32_t device_id = 0;
    std::span<const std::span<const std::string_view>> layer_groups;  // names; each group within one storage group
    std::span<const LeaseLoad> loads;
    std::string_view wait_event;  // to wait for before writing the destination; "" = none
    pega_event* local_event = nullptr;
    std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
};

// A load under way. on_layers and on_done run on an engine thread and must not block.
struct LoadCallbacks {
    std::function<void(std::size_t layers_landed)> on_layers;  // leading layers, in the request's order, that are there
    std::function<void(Result<void>)> on_done;                 // exactly once, when no byte moves any more
};
using LoadId = std::uint64_t;
using SaveId = std::uint64_t;
inline constexpr SaveId kNoSave = 0;  // it was over before the call returned

// A cache on files or block devices below the pool. Off without paths.
struct TierOptions {
    std::vector<std::string> paths;                           // directories or block devices, each used to the same part
    std::uint64_t capacity_bytes = std::uint64_t{512} << 30;  // of all paths together
    std::string backend = "nvme";                             // moves bytes between host memory and files
    std::uint64_t segment_bytes = std::uint64_t{64} << 20;    // written one after another, given up as a whole
    std::uint64_t write_bytes_per_day = 0;                    // 0 = no limit
    std::uint64_t write_queue_bytes = 0;         // pinned while they wait; 0 = an eighth of the pool, at most 1 GiB
    std::uint64_t prefetch_bytes = 0;            // on their way to requests; 0 = a quarter of the pool
    std::uint32_t max_prefetch_requests = 4096;  // at one time; a query that would be one more is kQueueFull
    std::uint64_t read_bytes_in_flight = std::uint64_t{64} << 20;
    std::chrono::nanoseconds prefetch_time = std::chrono::seconds(30);  // then a request gets what is there
    std::chrono::nanoseconds idle_time = std::chrono::seconds(10);      // a request that nobody asked for again is dropped
    std::chrono::nanoseconds io_time = std::chrono::seconds(30);        // a transfer that takes longer has failed
    std::uint32_t threads = 2;                                          // that prepare reads and check digests
    // Which paths are told what bytes are not needed any more: "devices" (TRIM), "all" (holes in files as well), or "none". A
    // file keeps its space otherwise: the next segment takes it, and writing where something was is cheaper than in a hole.
    std::string discard = "devices";
    double prefill_tokens_per_second = 0;  // of the serving engine; 0 = always load. Else a slower tier is a miss
    std::uint32_t tokens_per_block = 16;
};

struct EngineOptions {
    std::uint64_t pool_bytes = std::uint64_t{30} << 30;
    // The pool is made ready in slices of this many bytes, the first one before create returns; 0 = all of it. No block page
    // can be larger than a slice.
    std::uint64_t pool_slice_bytes = std::uint64_t{16} << 30;
    std::uint64_t block_bytes_hint = 0;  // typical bytes of a block, for the policies' history; 0 = 2 MiB
    bool hugepages = false;
    std::string pool_file;  // tmpfs or hugetlbfs file that backs the pool; "" = anonymous memory
    bool numa_affinity = true;
    std::string eviction_policy = "tiny_lfu";  // "lru", "tiny_lfu", or a plug-in module's name
    std::string admission_policy = "none";     // "none", or a plug-in module's name
    std::chrono::nanoseconds lease_time = std::chrono::seconds(600);
    std::chrono::nanoseconds max_lease_time =
        std::chrono::hours(24);                     // longer ones are cut to it, or to lease_time if that is more
    std::uint32_t max_leases_per_instance = 65536;  // a query that would need one more is kQueueFull
    std::chrono::nanoseconds incomplete_block_time =
        std::chrono::seconds(300);              // partly filled blocks older than this are dropped
    std::uint32_t max_queued_transfers = 1024;  // not ended, per worker and direction; more is answered with kQueueFull
    bool digests = true;                        // of every page: the copy's, or else computed in the background
    bool verify_on_load = false;                // check digests of memory-resident blocks before each load as well
    // Names of the devices (DeviceInfo) whose memory workers may register; empty = all. No other GPU is opened.
    std::vector<std::string> devices;
    // For which the distinct blocks that queries miss are estimated; a minute to 31 days each; empty = not at all.
    std::vector<std::chrono::nanoseconds> distinct_windows;
    TierOptions tier;
};

struct WorkerInfo {
    std::int32_t device_id = 0;
    std::uint32_t tp_rank = 0;
    std::uint32_t pp_rank = 0;
    std::string device;  // DeviceInfo.name of the device that moves its blocks
    std::uint64_t region_bytes = 0;
};

struct InstanceInfo {
    std::string instance_id;
    std::string name_space;
    std::uint32_t tp_size = 0;
    std::uint32_t world_size = 0;
    bool page_first = false;
    bool sealed = false;
    std::string layout_fingerprint;  // hex; "" until sealed
    std::vector<WorkerInfo> workers;
};

// One path of the tier. "ok"; "degraded": it serves what it has, but cannot be written or not be read right now; "failed": not
// in use since the start.
struct TierDeviceInfo {
    std::string path, state, problem;
    std::uint64_t capacity_bytes = 0, used_bytes = 0, live_bytes = 0, blocks = 0, segments = 0, free_segments = 0;
    std::uint64_t lifetime_written_bytes = 0;
    std::uint64_t recovered_blocks = 0;
    double recovery_seconds = 0;
};

// How values are distributed: counts[i] of them are at most bounds[i] and above the bound before; the last count is of those
// above all bounds.
struct Distribution {
    std::span<const double> bounds;
    std::vector<std::uint64_t> counts;
    double sum = 0;
};

// What group-0 queries asked for within a window of time up to now. An infinite cache would have hit at most
// 1 - distinct_missed / asked.
struct DistinctWindow {
    std::chrono::nanoseconds length{};
    std::uint64_t asked = 0;     // blocks
    double distinct_missed = 0;  // an estimate, within about 1 %
};

// Of the tier below the pool. Bytes written are block + rewritten + table bytes; the first are the user's.
struct TierStats {
    std::uint64_t capacity_bytes = 0, used_bytes = 0, live_bytes = 0, blocks = 0, devices = 0, devices_ok = 0;
    std::uint64_t queue_blocks = 0, queue_bytes = 0, stored_blocks = 0;
    std::uint64_t skipped_known = 0, skipped_queue_full = 0, skipped_budget = 0, skipped_too_large = 0, skipped_no_space = 0,
                  skipped_failed = 0, skipped_shed = 0;
    std::uint64_t block_bytes = 0, rewritten_bytes = 0, table_bytes = 0, discarded_bytes = 0, lifetime_written_bytes = 0;
    std::uint64_t flushes = 0;
    std::uint64_t rewritten_blocks = 0, evicted_segments = 0, evicted_blocks = 0, write_failures = 0;
    std::uint64_t read_blocks = 0, read_bytes = 0, read_failures = 0, digest_mismatches = 0, quarantined_blocks = 0;
    std::uint64_t recovered_blocks = 0, recovery_dropped = 0, recovery_problems = 0;
    std::uint64_t prefetch_requests = 0, prefetch_waiting = 0, prefetch_active = 0, prefetch_bytes = 0, prefetch_joined = 0,
                  prefetch_canceled = 0, prefetch_expired = 0, prefetch_too_slow = 0, prefetch_failed = 0;
    std::uint64_t hits = 0;  // blocks that queries got by way of the tier; part of EngineStats::block_hits
    double read_latency_seconds = 0, read_bytes_per_second = 0;  // as the cost model sees them
    std::uint64_t prefetch_stale = 0;                            // of prefetch_canceled: nobody asked again
    std::uint64_t prefetch_reading_blocks = 0;                   // by a transfer under way
    std::uint64_t prefetch_queue_full = 0;                       // refused: as many waited as may
    std::uint64_t writes_in_flight = 0;                          // extents of blocks
    Distribution write_rates, read_rates;  // bytes per second of single transfers, many of which run side by side
};

// Counters since the start and gauges of now. Plain numbers; consistent one by one, not as a whole.
struct EngineStats {
    std::uint64_t pool_capacity_bytes = 0, pool_used_bytes = 0, pool_largest_free_bytes = 0, pool_alloc_failures = 0;
    std::uint64_t pool_ready_bytes = 0;  // of the capacity: pinned and usable so far
    std::uint64_t resident_blocks = 0, resident_bytes = 0, incomplete_blocks = 0, incomplete_bytes = 0, incomplete_dropped = 0;
    std::uint64_t memory_hits = 0;  // those of block_hits that were in the pool when the query came
    std::uint64_t block_hits = 0, block_misses = 0, insertions = 0, admission_rejections = 0, evictions = 0, evicted_bytes = 0;
    std::uint64_t quarantined_blocks = 0, digest_mismatches = 0;
    std::uint64_t save_requests = 0, save_failures = 0, saved_blocks = 0, duplicate_blocks = 0, save_bytes = 0;
    std::uint64_t load_requests = 0, load_failures = 0, load_bytes = 0, loads_in_flight = 0, saves_in_flight = 0;
    std::uint64_t leases = 0, leases_expired = 0, queries = 0, queue_full = 0, canceled = 0;
    std::uint64_t instances = 0, workers = 0;
    std::uint64_t evictions_offered = 0;  // of evictions: blocks that the tier was offered, and has unless it was full
    std::uint64_t staging_bytes = 0;      // of pages that neither resident nor incomplete blocks have
    Distribution evicted_residence, erased_residence;  // seconds in the pool until eviction, until a clean-up
    TierStats tier;
};

// What is wrong with the engine, if anything. Devices are those of the Fabric that are open.
struct EngineHealth {
    std::vector<DeviceHealth> devices;
    std::vector<std::string> problems;  // each in words: a thread that does not run, a worker whose channel broke
    std::vector<std::string> limits;    // what works, but less than it was asked for: a pool that is not all there
};

struct MemoryCleanup {
    std::uint64_t evicted_blocks = 0, evicted_bytes = 0, reclaimed_bytes = 0, still_referenced_blocks = 0;
};

// What happened, with durations, for whoever keeps histograms. Called from engine threads; must not block.
struct EngineObserver {
    std::function<void(double seconds, std::uint64_t bytes)> on_save;
    std::function<void(double seconds, std::uint64_t bytes, bool ok)> on_load;
};

class Engine {
public:
    // `fabric` is borrowed until close returned. kNoMemory (pool), kInvalid (options), kNotFound (policy module).
    // A tier that cannot be used is no error: see tier_devices.
    static Result<std::unique_ptr<Engine>> create(EngineOptions options, Fabric& fabric, EngineObserver observer = {});
    ~Engine();

    // Registers one worker; the last one seals the instance. kInvalid with what was wrong, kNotReady on a topology that differs
    // from the instance's, kExists for a device that is there already, kRegionLost when the memory cannot be opened.
    Result<void> register_worker(const WorkerRegistration& worker);
    // Forgets an instance: refuses new work, waits for its copies to end, closes its regions, drops its leases and its partly
    // filled blocks. Sealed blocks stay. kNotFound.
    Result<void> unregister_instance(std::string_view instance_id);
    std::vector<InstanceInfo> instances() const;

    // Copies blocks into the pool. `done` runs exactly once, on an engine thread or before the call returns, when the source
    // may be reused; all views of the request are borrowed until then. Blocks become hits shortly after.
    // Blocks that were unused for long are evicted for it; a save of more than the whole pool is kNoMemory, and evicts none.
    // A save that ends after its deadline has failed, whatever was copied: its source may have changed under the copy.
    SaveId save_async(const SaveRequest& request, std::function<void(Result<SaveOutcome>)> done);
    Result<SaveOutcome> save(const SaveRequest& request);
    // Asks a save to end early: `done` still runs, when the source is not read any more, and no block comes of what had not
    // become one. kNotFound when it is over.
    Result<void> cancel_save(SaveId save);

    // Looks up blocks and leases the hits. kInvalid (empty request id, hash too long, unknown group, a lease time that is not
    // positive), kNotFound (instance), kQueueFull (too many leases, or too many queries wait for the tier).
    Result<QueryOutcome> query(const QueryRequest& request);
    // The lease ends that time from now, or the default one. Idempotent. kNotFound when unknown or expired.
    Result<void> renew(const LeaseId& lease, std::optional<std::chrono::nanoseconds> lease_time = {});
    // Drops a lease with all its remaining shares. kNotFound when unknown or expired.
    Result<void> release(const LeaseId& lease);

    // Starts copying leased blocks to their destinations; a worker's share of each lease is consumed only when every check has
    // passed. When the call fails, on_done is not called. kQueueFull: nothing started.
    Result<LoadId> load_async(const LoadRequest& request, LoadCallbacks callbacks);
    Result<void> load(const LoadRequest& request);
    // Ends a load early; its on_done still runs once, when no byte moves any more. kNotFound when it is over.
    Result<void> cancel_load(LoadId load);

    // Waits until everything saved so far is visible to queries (and has its digest).
    Result<void> flush();
    // The same, and until the tier has stored what it takes of it. kDeadlineExceeded.
    Result<void> flush_to_tier(std::chrono::steady_clock::time_point deadline);
    // The paths of the tier, in the order of the options. Empty without one.
    std::vector<TierDeviceInfo> tier_devices() const;
    // Drops every resident block. One that a lease or a copy uses stays a hit, counts as still referenced, and goes shortly
    // after that ended. Waits up to a second for the digests of what was saved before.
    MemoryCleanup cleanup_memory();
    // True when the block is resident: for tests and tools, no lease and no effect on recency.
    bool contains(std::string_view instance_id, std::string_view hash, std::uint32_t group = 0) const;

    // True when the tier has the block on its device: it outlives this process.
    bool stored(std::string_view instance_id, std::string_view hash, std::uint32_t group = 0) const;

    EngineStats stats() const;
    // One for each of EngineOptions::distinct_windows. [any]
    std::vector<DistinctWindow> distinct_windows() const;
    // Waits for no transfer. [any]
    EngineHealth health() const;
    // Refuses new work, waits for what runs (cancelled at `deadline`), frees everything. Idempotent. When a device of the tier
    // has not let go of memory some seconds after that, it returns all the same: the pool and whatever a
    // transfer could touch stay in memory, and the fabric's devices open, until the process ends, which should be soon. Without
    // a deadline it waits.
    void close(std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max());

    struct State;  // the library's own

private:
    explicit Engine(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace pegaflow

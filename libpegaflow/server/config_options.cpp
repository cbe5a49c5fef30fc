// SPDX-License-Identifier: Apache-2.0
// The table of options. A new option of the serving process is one entry here.
#include <fmt/format.h>

#include <algorithm>

#include "server/option_kinds.hpp"

namespace pegaflow::server {
namespace {

void add_ssd_options(std::vector<Option>& out) {
    const auto tier = [](Config& c) -> TierOptions& { return c.engine.tier; };
    out.push_back(list_option("ssd.paths", "Directories or block devices that keep blocks over restarts; empty = no SSD tier.",
                              [tier](Config& c) -> std::vector<std::string>& { return tier(c).paths; },
                              {"/mnt/nvme0/pegaflow", "/dev/nvme1n1"}));
    out.push_back(size_option("ssd.capacity", "Space for the cache, over all paths; each gets the same part.", 1 << 20,
                              [tier](Config& c) -> std::uint64_t& { return tier(c).capacity_bytes; }));
    out.push_back(text_option("ssd.backend", "The back end that moves bytes between host memory and files.", "a back end",
                              [tier](Config& c) -> std::string& { return tier(c).backend; }));
    out.push_back(size_option("ssd.segment-size", "What is written in a row and given up as a whole; 1 MiB to 4 GiB.", 1 << 20,
                              [tier](Config& c) -> std::uint64_t& { return tier(c).segment_bytes; }));
    out.push_back(size_option("ssd.bytes-per-day",
                              "New blocks written in 24 hours at most, so that the devices last; 0 = no limit.", 0,
                              [tier](Config& c) -> std::uint64_t& { return tier(c).write_bytes_per_day; }));
    out.push_back(size_option(
        "ssd.write-queue", "Pool memory that blocks waiting to be written may hold; 0 = an eighth of the pool, at most 1 GiB.",
        0, [tier](Config& c) -> std::uint64_t& { return tier(c).write_queue_bytes; }));
    out.push_back(size_option("ssd.prefetch", "Pool memory for blocks on their way to queries; 0 = a quarter of the pool.", 0,
                              [tier](Config& c) -> std::uint64_t& { return tier(c).prefetch_bytes; }));
    out.push_back(integer_option<std::uint32_t>(
        "ssd.max-prefetches", "Queries that may wait for the SSD at one time; one more is answered with RESOURCE_EXHAUSTED.", 1,
        1 << 20, [tier](Config& c) -> std::uint32_t& { return tier(c).max_prefetch_requests; }));
    out.push_back(size_option("ssd.read-in-flight",
                              "Bytes that are being read at one time; what waits is read in order of urgency.", 4096,
                              [tier](Config& c) -> std::uint64_t& { return tier(c).read_bytes_in_flight; }));
    out.push_back(duration_option("ssd.prefetch-time", "A query that waits longer than this for the SSD gets what is there.",
                                  [tier](Config& c) -> std::chrono::nanoseconds& { return tier(c).prefetch_time; }));
    out.push_back(duration_option("ssd.idle-time", "A query that is not asked again for this long is dropped with its reads.",
                                  [tier](Config& c) -> std::chrono::nanoseconds& { return tier(c).idle_time; }));
    out.push_back(duration_option("ssd.io-time", "A transfer that takes longer than this has failed.",
                                  [tier](Config& c) -> std::chrono::nanoseconds& { return tier(c).io_time; }));
    out.push_back(integer_option<std::uint32_t>("ssd.threads", "Threads that prepare reads and check digests.", 1, 64,
                                                [tier](Config& c) -> std::uint32_t& { return tier(c).threads; }));
    out.push_back(choice_option("ssd.discard",
                                "Which paths are told what bytes are not needed any more: block devices (TRIM), files as well "
                                "(holes, which make writing slower), or none.",
                                {"devices", "all", "none"}, [tier](Config& c) -> std::string& { return tier(c).discard; }));
    out.push_back(integer_option<double>("ssd.prefill-tokens-per-second",
                                         "How fast the serving engine computes tokens: blocks that the SSD would bring later "
                                         "than that are misses. 0 = always load.",
                                         0, 1'000'000'000,
                                         [tier](Config& c) -> double& { return tier(c).prefill_tokens_per_second; }));
    out.push_back(integer_option<std::uint32_t>("ssd.tokens-per-block", "Tokens of one block, for the comparison above.", 1,
                                                1 << 20,
                                                [tier](Config& c) -> std::uint32_t& { return tier(c).tokens_per_block; }));
}

std::vector<Option> make_options() {
    std::vector<Option> out;
    out.push_back(address_option("server.listen", "Where the gRPC service listens; port 0 takes any free one.",
                                 [](Config& c) -> std::string& { return c.listen; }));
    out.push_back(duration_option("server.drain-timeout", "How long a stop waits for running calls before it ends them.",
                                  [](Config& c) -> std::chrono::nanoseconds& { return c.drain_timeout; }));
    out.push_back(address_option("admin.listen", "Where HTTP health, metrics and administration listen.",
                                 [](Config& c) -> std::string& { return c.admin_listen; }));
    out.push_back(bool_option("admin.metrics", "Serve /metrics in the Prometheus text format.",
                              [](Config& c) -> bool& { return c.metrics; }));
    out.push_back(windows_option());
    out.push_back(choice_option("log.level", "Lines below this level are not written.",
                                {"trace", "debug", "info", "warning", "error"},
                                [](Config& c) -> std::string& { return c.log_level; }));
    out.push_back(size_option("pool.size", "Host memory for cached blocks, over all NUMA nodes.", 4096,
                              [](Config& c) -> std::uint64_t& { return c.engine.pool_bytes; }));
    out.push_back(
        size_option("pool.slice",
                    "The pool becomes ready in slices of this size, the first one before the server answers. No block "
                    "can be larger. 0 = all at once.",
                    0, [](Config& c) -> std::uint64_t& { return c.engine.pool_slice_bytes; }));
    out.push_back(size_option("pool.block-size-hint",
                              "Typical bytes of one block; sizes the history of the eviction policy. 0 = 2 MiB.", 0,
                              [](Config& c) -> std::uint64_t& { return c.engine.block_bytes_hint; }));
    out.push_back(bool_option("pool.hugepages", "Back the pool with huge pages set aside by vm.nr_hugepages.",
                              [](Config& c) -> bool& { return c.engine.hugepages; }));
    out.push_back(text_option(
        "pool.file", "A file on tmpfs or hugetlbfs that backs the pool; empty = anonymous memory.", "a path",
        [](Config& c) -> std::string& { return c.engine.pool_file; }, "/dev/shm/pegaflow"));
    out.push_back(bool_option("pool.numa-affinity", "Divide the pool among the NUMA nodes and place blocks near their device.",
                              [](Config& c) -> bool& { return c.engine.numa_affinity; }));
    out.push_back(text_option("cache.eviction",
                              "Which block goes first when the pool is full. tiny_lfu lets blocks that are used often stay "
                              "unused longer; lru looks at the last use alone.",
                              "tiny_lfu, lru, or the name of a policy plug-in",
                              [](Config& c) -> std::string& { return c.engine.eviction_policy; }));
    out.push_back(text_option("cache.admission", "Whether a new block may push an old one out; none lets every one.",
                              "none, or the name of a policy plug-in",
                              [](Config& c) -> std::string& { return c.engine.admission_policy; }));
    out.push_back(bool_option("cache.digests",
                              "Give every page a digest of 64 bits: on its way into the pool, or else in the background.",
                              [](Config& c) -> bool& { return c.engine.digests; }));
    out.push_back(bool_option("cache.verify-on-load", "Check the digests of resident blocks before every load.",
                              [](Config& c) -> bool& { return c.engine.verify_on_load; }));
    out.push_back(duration_option("cache.lease-time", "How long a query's hits stay pinned for the load.",
                                  [](Config& c) -> std::chrono::nanoseconds& { return c.engine.lease_time; }));
    out.push_back(duration_option("cache.max-lease-time",
                                  "Longer lease times that clients ask for are cut to this, or to cache.lease-time if that is "
                                  "more.",
                                  [](Config& c) -> std::chrono::nanoseconds& { return c.engine.max_lease_time; }));
    out.push_back(integer_option<std::uint32_t>(
        "cache.max-leases",
        "Leases that one instance may hold at one time; a query that would need one more is answered with RESOURCE_EXHAUSTED.",
        1, 1 << 24, [](Config& c) -> std::uint32_t& { return c.engine.max_leases_per_instance; }));
    out.push_back(duration_option("cache.incomplete-block-time", "Partly filled blocks older than this are dropped.",
                                  [](Config& c) -> std::chrono::nanoseconds& { return c.engine.incomplete_block_time; }));
    out.push_back(integer_option<std::uint32_t>(
        "transfer.max-queued", "Transfers of one worker and direction that may wait; more is answered with RESOURCE_EXHAUSTED.",
        1, 1 << 20, [](Config& c) -> std::uint32_t& { return c.engine.max_queued_transfers; }));
    add_ssd_options(out);
    out.push_back(
        list_option("modules.search-path", "Directories searched for back ends and plug-ins after PEGAFLOW_PLUGIN_PATH.",
                    [](Config& c) -> std::vector<std::string>& { return c.fabric.search_path; }, {"/opt/pegaflow/modules"}));
    out.push_back(list_option("modules.backends", "Back ends to load; empty = all that are found.",
                              [](Config& c) -> std::vector<std::string>& { return c.fabric.backends; }, {"cuda", "host"}));
    out.push_back(wrap_option());
    out.push_back(list_option("modules.devices",
                              "Devices whose memory workers may register, such as cuda:0; no other GPU is opened. Empty = all; "
                              "`pegaflow plugins` lists them.",
                              [](Config& c) -> std::vector<std::string>& { return c.engine.devices; }, {"cuda:0", "cuda:1"}));
    return out;
}

}  // namespace

std::string Option::flag() const {
    std::string out = "--" + key;
    std::replace(out.begin(), out.end(), '.', '-');
    return out;
}

Result<Parts> Option::from_flag(std::string_view text) const {
    if (kind != Kind::kList) return Parts{std::string(text)};
    Parts parts;
    for (std::size_t at = 0; !text.empty() && at <= text.size();) {
        const std::size_t comma = std::min(text.find(',', at), text.size());
        if (comma == at) return fail(Code::kInvalid, fmt::format("\"{}\" has an empty entry", text));
        parts.emplace_back(text.substr(at, comma - at));
        at = comma + 1;
    }
    return parts;
}

const std::vector<Option>& options() {
    static const std::vector<Option> all = make_options();
    return all;
}

}  // namespace pegaflow::server

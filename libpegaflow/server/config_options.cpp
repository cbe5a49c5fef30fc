// SPDX-License-Identifier: Apache-2.0
// The table of options. A new option of the serving process is one entry here.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "pegaflow/bytes.hpp"
#include "server/config.hpp"

namespace pegaflow::server {
namespace {

unexpected<Error> bad(std::string_view value, std::string_view expected) {
    return fail(Code::kInvalid, fmt::format("\"{}\" is not valid, expected {}", value, expected));
}

using Member = std::function<std::string&(Config&)>;

Option text_option(std::string key, std::string help, std::string type, const std::function<std::string&(Config&)>& member) {
    return {std::move(key),
            std::move(type),
            std::move(help),
            false,
            [member](const Config& c) { return member(const_cast<Config&>(c)); },
            [member](Config& c, std::string_view v) -> Result<void> {
                member(c) = std::string(v);
                return {};
            }};
}

Option choice_option(std::string key, std::string help, std::vector<std::string> choices,
                     const std::function<std::string&(Config&)>& member) {
    const std::string type = fmt::format("one of {}", fmt::join(choices, ", "));
    return {std::move(key),
            type,
            std::move(help),
            false,
            [member](const Config& c) { return member(const_cast<Config&>(c)); },
            [member, choices, type](Config& c, std::string_view v) -> Result<void> {
                if (std::find(choices.begin(), choices.end(), v) == choices.end()) return bad(v, type);
                member(c) = std::string(v);
                return {};
            }};
}

Option address_option(std::string key, std::string help, const std::function<std::string&(Config&)>& member) {
    constexpr const char* kType = "address:port, as 127.0.0.1:50055 or [::1]:50055";
    return {std::move(key),
            kType,
            std::move(help),
            false,
            [member](const Config& c) { return member(const_cast<Config&>(c)); },
            [member](Config& c, std::string_view v) -> Result<void> {
                const std::size_t colon = v.rfind(':');
                unsigned port = 0;
                const auto end = v.data() + v.size();
                if (colon == std::string_view::npos || colon == 0) return bad(v, kType);
                const auto [stop, error] = std::from_chars(v.data() + colon + 1, end, port);
                if (error != std::errc() || stop != end || port > 65535) return bad(v, kType);
                member(c) = std::string(v);
                return {};
            }};
}

Option bool_option(std::string key, std::string help, const std::function<bool&(Config&)>& member) {
    return {std::move(key),
            "true or false",
            std::move(help),
            true,
            [member](const Config& c) { return std::string(member(const_cast<Config&>(c)) ? "true" : "false"); },
            [member](Config& c, std::string_view v) -> Result<void> {
                if (v != "true" && v != "false") return bad(v, "true or false");
                member(c) = v == "true";
                return {};
            }};
}

Option size_option(std::string key, std::string help, std::uint64_t least,
                   const std::function<std::uint64_t&(Config&)>& member) {
    const std::string type = least == 0 ? "a size" : fmt::format("a size of at least {}", format_size(least));
    return {std::move(key),
            type,
            std::move(help),
            false,
            [member](const Config& c) { return format_size(member(const_cast<Config&>(c))); },
            [member, least, type](Config& c, std::string_view v) -> Result<void> {
                PEGA_ASSIGN(const std::uint64_t size, parse_size(v));
                if (size < least) return bad(v, type);
                member(c) = size;
                return {};
            }};
}

template <class T>
Option integer_option(std::string key, std::string help, std::uint64_t least, std::uint64_t most,
                      const std::function<T&(Config&)>& member) {
    const std::string type = fmt::format("an integer from {} to {}", least, most);
    return {std::move(key),
            type,
            std::move(help),
            false,
            [member](const Config& c) { return std::to_string(static_cast<std::uint64_t>(member(const_cast<Config&>(c)))); },
            [member, least, most, type](Config& c, std::string_view v) -> Result<void> {
                std::uint64_t number = 0;
                const auto [end, error] = std::from_chars(v.data(), v.data() + v.size(), number);
                if (error != std::errc() || end != v.data() + v.size() || number < least || number > most) return bad(v, type);
                member(c) = static_cast<T>(number);
                return {};
            }};
}

Option duration_option(std::string key, std::string help, const std::function<std::chrono::nanoseconds&(Config&)>& member) {
    constexpr const char* kType = "a duration such as 500ms, 30s, 15m or 1h";
    return {std::move(key),
            kType,
            std::move(help),
            false,
            [member](const Config& c) { return fmt::format("{}ms", member(const_cast<Config&>(c)).count() / 1'000'000); },
            [member](Config& c, std::string_view v) -> Result<void> {
                std::uint64_t number = 0;
                const auto [end, error] = std::from_chars(v.data(), v.data() + v.size(), number);
                const std::string_view unit(end, static_cast<std::size_t>(v.data() + v.size() - end));
                const std::map<std::string_view, std::uint64_t> units = {
                    {"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}};
                const auto scale = units.find(unit);
                if (error != std::errc() || scale == units.end() || number == 0 || number > 1'000'000'000) return bad(v, kType);
                member(c) = std::chrono::milliseconds(number * scale->second);
                return {};
            }};
}

// Comma separated on the command line, an array in the file.
Option list_option(std::string key, std::string help, const std::function<std::vector<std::string>&(Config&)>& member) {
    return {std::move(key),
            "a list of texts",
            std::move(help),
            false,
            [member](const Config& c) { return fmt::format("{}", fmt::join(member(const_cast<Config&>(c)), ",")); },
            [member](Config& c, std::string_view v) -> Result<void> {
                std::vector<std::string> out;
                std::stringstream parts{std::string(v)};
                for (std::string part; std::getline(parts, part, ',');) {
                    if (part.empty()) return bad(v, "a list without empty entries");
                    out.push_back(part);
                }
                member(c) = std::move(out);
                return {};
            }};
}

Option wrap_option() {
    constexpr const char* kType = "a list of wrapper=backend";
    return {"modules.wrap",
            kType,
            "Interposers around back ends, such as fault=host or trace=cuda; of several around one, the last is outermost.",
            false,
            [](const Config& c) {
                std::vector<std::string> parts;
                for (const auto& [wrapper, inner] : c.fabric.wrap) parts.push_back(wrapper + "=" + inner);
                return fmt::format("{}", fmt::join(parts, ","));
            },
            [](Config& c, std::string_view v) -> Result<void> {
                std::vector<std::pair<std::string, std::string>> out;
                std::stringstream parts{std::string(v)};
                for (std::string part; std::getline(parts, part, ',');) {
                    const std::size_t equals = part.find('=');
                    if (equals == std::string::npos || equals == 0 || equals + 1 == part.size()) return bad(part, kType);
                    out.emplace_back(part.substr(0, equals), part.substr(equals + 1));
                }
                c.fabric.wrap = std::move(out);
                return {};
            }};
}

// A minute to 31 days, in whole minutes; 0 for anything else.
std::chrono::nanoseconds parse_window(std::string_view text) {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
    const std::map<std::string_view, std::int64_t> units = {{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
    const auto scale = units.find(unit);
    constexpr std::int64_t kMost = 31 * 86400;
    if (error != std::errc() || scale == units.end() || number <= 0 || number > kMost / scale->second) return {};
    const std::int64_t seconds = number * scale->second;
    return std::chrono::seconds(seconds % 60 == 0 ? seconds : 0);
}

Option windows_option() {
    constexpr const char* kType = "a list of different windows such as 15m, 1h or 1d, in whole minutes up to 31d";
    return {"metrics.distinct-windows",
            kType,
            "Windows for which the different blocks that queries miss are estimated: what a cache that never evicts would hit. "
            "Empty = none.",
            false,
            [](const Config& c) {
                std::vector<std::string> parts;
                for (const auto window : c.engine.distinct_windows) parts.push_back(format_window(window));
                return fmt::format("{}", fmt::join(parts, ","));
            },
            [](Config& c, std::string_view v) -> Result<void> {
                std::vector<std::chrono::nanoseconds> out;
                for (std::size_t at = 0; !v.empty() && at <= v.size();) {
                    const std::size_t comma = std::min(v.find(',', at), v.size());
                    const auto window = parse_window(v.substr(at, comma - at));
                    if (window.count() == 0 || std::ranges::find(out, window) != out.end()) return bad(v, kType);
                    out.push_back(window);
                    at = comma + 1;
                }
                c.engine.distinct_windows = std::move(out);
                return {};
            }};
}

void add_ssd_options(std::vector<Option>& out) {
    const auto tier = [](Config& c) -> TierOptions& { return c.engine.tier; };
    out.push_back(list_option("ssd.paths", "Directories or block devices that keep blocks over restarts; empty = no SSD tier.",
                              [tier](Config& c) -> std::vector<std::string>& { return tier(c).paths; }));
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
    out.push_back(text_option("pool.file", "A file on tmpfs or hugetlbfs that backs the pool; empty = anonymous memory.",
                              "a path", [](Config& c) -> std::string& { return c.engine.pool_file; }));
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
    out.push_back(duration_option("cache.incomplete-block-time", "Partly filled blocks older than this are dropped.",
                                  [](Config& c) -> std::chrono::nanoseconds& { return c.engine.incomplete_block_time; }));
    out.push_back(integer_option<std::uint32_t>(
        "transfer.max-queued", "Transfers of one worker and direction that may wait; more is answered with RESOURCE_EXHAUSTED.",
        1, 1 << 20, [](Config& c) -> std::uint32_t& { return c.engine.max_queued_transfers; }));
    add_ssd_options(out);
    out.push_back(list_option("modules.search-path",
                              "Directories searched for back ends and plug-ins after PEGAFLOW_PLUGIN_PATH.",
                              [](Config& c) -> std::vector<std::string>& { return c.fabric.search_path; }));
    out.push_back(list_option("modules.backends", "Back ends to load; empty = all that are found.",
                              [](Config& c) -> std::vector<std::string>& { return c.fabric.backends; }));
    out.push_back(wrap_option());
    out.push_back(list_option("modules.devices",
                              "Devices whose memory workers may register, such as cuda:0; no other GPU is opened. Empty = all; "
                              "`pegaflow plugins` lists them.",
                              [](Config& c) -> std::vector<std::string>& { return c.engine.devices; }));
    return out;
}

}  // namespace

std::string format_window(std::chrono::nanoseconds window) {
    const std::int64_t minutes = window / std::chrono::minutes(1);
    if (minutes % (24 * 60) == 0) return fmt::format("{}d", minutes / (24 * 60));
    return minutes % 60 == 0 ? fmt::format("{}h", minutes / 60) : fmt::format("{}m", minutes);
}

std::string Option::flag() const {
    std::string out = "--" + key;
    std::replace(out.begin(), out.end(), '.', '-');
    return out;
}

const std::vector<Option>& options() {
    static const std::vector<Option> all = make_options();
    return all;
}

}  // namespace pegaflow::server

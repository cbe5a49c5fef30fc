// SPDX-License-Identifier: Apache-2.0
#include "tools/conformance/fixture.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <thread>

namespace pegaflow::conformance {
namespace {

std::uint64_t clock_ns(void*) {
    return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}
void discard(void*, std::uint32_t, const char*, const char*) {}

// Word by word: the suite runs under sanitizers too, where each access costs.
std::vector<std::uint8_t> seeded(std::uint64_t seed, std::uint64_t salt, std::uint64_t bytes) {
    const auto word = [&](std::uint64_t number) {
        std::uint64_t x = (number + 1) * 0x9e3779b97f4a7c15ULL ^ seed * 0xbf58476d1ce4e5b9ULL ^ salt * 0x94d049bb133111ebULL;
        x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
        return x ^ x >> 31;
    };
    std::vector<std::uint64_t> words((bytes + 7) / 8);
    for (std::uint64_t i = 0; i < words.size(); ++i) words[i] = word(i);
    std::vector<std::uint8_t> out(bytes);
    if (bytes != 0) std::memcpy(out.data(), words.data(), bytes);
    return out;
}

}  // namespace

const pega_entry* Module::load(const std::string& path) {
    // A name without a slash means the file here, not one on the loader's search path.
    auto library = core::Library::open(std::filesystem::absolute(path).string());
    if (!library) throw Unusable("entry", library.error().message);
    libraries_.push_back(std::move(*library));
    const auto found = core::check_entry(libraries_.back());
    if (!found) throw Unusable("entry", found.error().message);
    return *found;
}

core::BackendTables Module::tables(const pega_entry* entry, const std::string& path) {
    const auto found = core::check_backend(entry, path);
    if (!found) throw Unusable("tables", found.error().message);
    return *found;
}

const pega_entry* Module::find(void* context, const char* name) {
    const auto& self = *static_cast<Module*>(context);
    const auto it = self.by_name_.find(name);
    return it == self.by_name_.end() ? nullptr : it->second;
}

const void* Module::extension(void*, const char* id) {
    static constexpr pega_host_modules kModules = {sizeof(pega_host_modules), 0, &Module::find};
    return std::strcmp(id, PEGA_HOST_MODULES) == 0 ? &kModules : nullptr;
}

Module::Module(const Options& given) {
    for (const std::string& path : given.companions) {
        const pega_entry* companion = load(path);
        tables(companion, path);
        by_name_[companion->name] = companion;
    }
    entry = load(given.path);
    const bool policy = entry->get(PEGA_EVICTION_TABLE) != nullptr || entry->get(PEGA_ADMISSION_TABLE) != nullptr;
    if (!policy || entry->get(PEGA_BACKEND_TABLE) != nullptr) {
        const core::BackendTables found = tables(entry, given.path);
        backend = found.backend;
        region = found.region;
        channel = found.channel;
        completion = found.completion;
    }
    host = {sizeof host, 0, this, &discard, &clock_ns, &Module::extension};
    for (const std::string& option : given.options) {
        const std::size_t equals = std::min(option.find('='), option.size());
        texts_.push_back(option.substr(0, equals));
        texts_.push_back(equals < option.size() ? option.substr(equals + 1) : "");
    }
    for (std::size_t i = 0; i < texts_.size(); i += 2) options.push_back({texts_[i].c_str(), texts_[i + 1].c_str()});
    for (const pega_option& option : options) {
        if (std::strcmp(option.key, "inner") != 0 || by_name_.contains(option.value)) continue;
        // What an interposer wraps is looked for beside it.
        const auto file = std::filesystem::path(given.path).parent_path() / fmt::format("pegaflow-backend-{}.so", option.value);
        if (!std::filesystem::exists(file)) continue;
        const pega_entry* inner = load(file.string());
        tables(inner, file.string());
        by_name_[option.value] = inner;
    }
}

Module::~Module() {
    while (!libraries_.empty()) libraries_.pop_back();
}

Fixture::Fixture(const Module& module, std::uint64_t suite_seed, std::uint32_t which) : m(module), seed(suite_seed) {
    std::vector<pega_device_info> infos(16);
    infos[0].size = sizeof(pega_device_info);
    std::uint32_t count = 0;
    char reason[256] = "";
    const auto options = static_cast<std::uint32_t>(m.options.size());
    const pega_status probed =
        m.backend->probe(&m.host, m.options.data(), options, infos.data(), 16, &count, reason, sizeof reason);
    if (probed != PEGA_OK || count == 0) throw Skipped(fmt::format("the back end finds no device here: {}", reason));
    device_count = std::min<std::uint32_t>(count, 16);
    PEGA_EXPECT(which < device_count, fmt::format("there is no device {} here", which));
    info = infos[which];
    pega_open_params params{sizeof params, info.index, PEGA_OPEN_CALLER_POLLS, options, m.options.data()};
    if (m.backend->open(&m.host, &params, &device) != PEGA_OK) throw Failed("open refuses a device that probe found");
    caps.size = sizeof caps;
    PEGA_EXPECT(m.backend->capabilities(device, &caps) == PEGA_OK, "capabilities");
    PEGA_EXPECT(caps.alignment != 0, "alignment is 0");
    if ((caps.matrix[info.kind] >> PEGA_MEMORY_HOST & 1) == 0) remote_kind = info.kind;
}

Fixture::~Fixture() {
    for (pega_channel* open : channels_) m.channel->close(open, UINT64_MAX);
    for (pega_region* registered : regions_) m.region->unregister(registered);
    if (device != nullptr) m.backend->close(device);
}

Memory Fixture::make(std::uint32_t kind, std::uint64_t bytes, std::uint64_t salt) {
    Memory out;
    out.shadow = seeded(seed, salt, bytes);
    pega_memory memory{};
    memory.size = sizeof memory;
    memory.kind = kind;
    memory.length = bytes;
    if (kind == PEGA_MEMORY_HOST && (caps.source_mask >> PEGA_SOURCE_ADDRESS & 1) != 0) {
        out.host = out.shadow;
        memory.source = PEGA_SOURCE_ADDRESS;
        memory.address = out.host.data();
    } else {
        memory.source = PEGA_SOURCE_ALLOCATE;
    }
    const pega_status status = m.region->register_memory(device, &memory, &out.region);
    if (status != PEGA_OK) throw Failed(fmt::format("cannot register {} bytes of kind {}: status {}", bytes, kind, status));
    regions_.push_back(out.region);
    out.owner = this;
    if (out.host.empty()) write_seeded(out);
    return out;
}

Memory Fixture::local(std::uint64_t bytes) { return make(info.kind, bytes, ++salt_); }
Memory Fixture::remote(std::uint64_t bytes) { return make(remote_kind, bytes, ++salt_); }

// Memory that processors do not address gets its bytes by a transfer from memory that they do.
void Fixture::write_seeded(Memory& memory) {
    pega_region_info region{};
    region.size = sizeof region;
    m.region->info(memory.region, &region);
    if (region.kind == PEGA_MEMORY_HOST && region.address != nullptr) {
        std::memcpy(region.address, memory.shadow.data(), memory.shadow.size());
        return;
    }
    Memory staging = make(PEGA_MEMORY_HOST, memory.shadow.size(), 0);
    std::memcpy(staging.host.data(), memory.shadow.data(), memory.shadow.size());
    pega_channel* through = open_channel();
    pega_batch batch = flat(PEGA_OP_READ, memory, staging, {0}, {0}, {memory.shadow.size()});
    const std::uint64_t zero = 0;
    const std::uint64_t all = memory.shadow.size();
    batch.local_offsets = batch.remote_offsets = &zero;
    batch.lengths = &all;
    const pega_completion end = run(through, batch);
    PEGA_EXPECT(end.status == PEGA_OK,
                fmt::format("staging a region's first bytes: status {}, native code {}", end.status, end.native_code));
    close_channel(through);
}

Memory::~Memory() {
    if (owner != nullptr) owner->drop(*this);
}

void Fixture::drop(Memory& memory) noexcept {
    memory.owner = nullptr;
    // A check that failed may leave a batch in flight: then the region stays, and the device's close waits for it.
    if (m.region->unregister(memory.region) == PEGA_OK) {
        std::erase(regions_, memory.region);
    } else {
        orphans_.push_back(std::move(memory.host));
    }
}

const std::uint8_t* Fixture::bytes_of(const Memory& memory) const {
    if (!memory.host.empty()) return memory.host.data();
    pega_region_info region{};
    region.size = sizeof region;
    m.region->info(memory.region, &region);
    return region.kind == PEGA_MEMORY_HOST ? static_cast<const std::uint8_t*>(region.address) : nullptr;
}

void Fixture::close_device() {
    channels_.clear();
    regions_.clear();
    m.backend->close(device);
    device = nullptr;
}

void Fixture::forget(Memory& memory) noexcept {
    memory.owner = nullptr;
    std::erase(regions_, memory.region);
}

std::vector<std::uint8_t> Fixture::read_back(Memory& memory) {
    if (const std::uint8_t* bytes = bytes_of(memory)) return {bytes, bytes + memory.shadow.size()};
    Memory staging = make(PEGA_MEMORY_HOST, memory.shadow.size(), 0);
    pega_channel* through = open_channel();
    const std::uint64_t zero = 0;
    const std::uint64_t all = memory.shadow.size();
    pega_batch batch = flat(PEGA_OP_WRITE, memory, staging, {0}, {0}, {all});
    batch.local_offsets = batch.remote_offsets = &zero;
    batch.lengths = &all;
    const pega_completion end = run(through, batch);
    PEGA_EXPECT(end.status == PEGA_OK,
                fmt::format("reading a region back: status {}, native code {}", end.status, end.native_code));
    close_channel(through);
    return std::move(staging.host);
}

void Fixture::expect_same(Memory& memory, const std::string& what) {
    const std::vector<std::uint8_t> bytes = read_back(memory);
    if (std::memcmp(bytes.data(), memory.shadow.data(), bytes.size()) == 0) return;
    const auto [got, want] = std::mismatch(bytes.begin(), bytes.end(), memory.shadow.begin());
    throw Failed(fmt::format("{}: byte {} is {:#04x}, expected {:#04x}", what, got - bytes.begin(), *got, *want));
}

pega_status Fixture::try_channel(std::uint32_t depth, const void* address, std::uint64_t length, pega_channel** out) {
    pega_channel_params params{};
    params.size = sizeof params;
    params.priority = 1;
    params.queue_depth = depth;
    params.address = address;
    params.address_length = length;
    const pega_status status = m.channel->open(device, &params, out);
    if (status == PEGA_OK) channels_.push_back(*out);
    return status;
}

pega_channel* Fixture::open_channel(std::uint32_t depth, const void* address, std::uint64_t length) {
    pega_channel* out = nullptr;
    const pega_status status = try_channel(depth, address, length, &out);
    if (status != PEGA_OK) throw Failed(fmt::format("cannot open a channel: status {}", status));
    return out;
}

void Fixture::close_channel(pega_channel* channel) {
    PEGA_EXPECT(m.channel->close(channel, now() + 10'000'000'000ULL) == PEGA_OK, "close within ten seconds");
    std::erase(channels_, channel);
}

pega_batch Fixture::flat(std::uint32_t op, Memory& local, Memory& remote, const std::vector<std::uint64_t>& from,
                         const std::vector<std::uint64_t>& to, const std::vector<std::uint64_t>& lengths) {
    pega_batch batch{};
    batch.size = sizeof batch;
    batch.op = op;
    batch.format = PEGA_FORMAT_FLAT;
    batch.span_size = sizeof(pega_span);
    batch.user_data = next_user_data();
    batch.local_region = local.region;
    batch.remote_region = remote.region;
    batch.local_offsets = from.data();
    batch.remote_offsets = to.data();
    batch.lengths = lengths.data();
    batch.flat_count = lengths.size();
    return batch;
}

pega_batch Fixture::spans(std::uint32_t op, const std::vector<pega_span>& list, const std::vector<std::uint64_t>& local_index,
                          const std::vector<std::uint64_t>& remote_index) {
    pega_batch batch{};
    batch.size = sizeof batch;
    batch.op = op;
    batch.format = PEGA_FORMAT_SPANS;
    batch.span_size = sizeof(pega_span);
    batch.user_data = next_user_data();
    batch.spans = list.data();
    batch.span_count = list.size();
    batch.local_index = local_index.data();
    batch.remote_index = remote_index.data();
    batch.index_count = local_index.size();
    return batch;
}

void Fixture::abandon_batches() {
    std::erase_if(channels_, [&](pega_channel* open) { return m.channel->close(open, now() + 10'000'000'000ULL) == PEGA_OK; });
}

std::map<std::uint64_t, pega_completion> Fixture::wait(std::size_t count, const OnMark& on_mark, double seconds) {
    try {
        return poll_until_ended(count, on_mark, seconds);
    } catch (const Failed&) {
        abandon_batches();
        throw;
    }
}

std::map<std::uint64_t, pega_completion> Fixture::poll_until_ended(std::size_t count, const OnMark& on_mark, double seconds) {
    std::map<std::uint64_t, pega_completion> ended;
    const auto limit = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    while (ended.size() < count) {
        pega_completion records[16] = {};
        records[0].size = sizeof(pega_completion);
        const std::uint32_t got = m.completion->poll(device, records, 16);
        for (std::uint32_t i = 0; i < got; ++i) {
            if ((records[i].flags & PEGA_COMPLETION_TERMINAL) == 0) {
                PEGA_EXPECT((records[i].flags & PEGA_COMPLETION_MARK) != 0, "a record that is neither an end nor a mark");
                PEGA_EXPECT(!ended.contains(records[i].user_data), "a mark after the end of its batch");
                if (on_mark) on_mark(records[i]);
                continue;
            }
            PEGA_EXPECT((records[i].flags & PEGA_COMPLETION_QUIESCED) != 0, "an end without QUIESCED");
            PEGA_EXPECT(ended.emplace(records[i].user_data, records[i]).second, "a batch that ended twice");
        }
        if (std::chrono::steady_clock::now() > limit)
            throw Failed(fmt::format("only {} of {} batches ended in {} s", ended.size(), count, seconds));
        if (got == 0) std::this_thread::yield();
    }
    return ended;
}

pega_completion Fixture::run(pega_channel* channel, pega_batch& batch, const OnMark& on_mark) {
    const pega_status status = m.channel->submit(channel, &batch);
    if (status != PEGA_OK) throw Failed(fmt::format("submit refused a sound batch: status {}", status));
    const auto ended = wait(1, on_mark);
    PEGA_EXPECT(ended.contains(batch.user_data), "the end of a batch with another user_data");
    return ended.at(batch.user_data);
}

void Fixture::expect_silence(double seconds) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    while (std::chrono::steady_clock::now() < limit) {
        pega_completion record{};
        record.size = sizeof record;
        PEGA_EXPECT(m.completion->poll(device, &record, 1) == 0, "a completion that belongs to no batch");
        std::this_thread::yield();
    }
}

}  // namespace pegaflow::conformance

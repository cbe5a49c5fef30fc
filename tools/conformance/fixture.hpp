// SPDX-License-Identifier: Apache-2.0
// fixture.hpp - what a check works with: the module, an open device, regions with known bytes, and a poller.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/plugin/entry_check.hpp"
#include "core/plugin/library.hpp"
#include "pegaflow/abi/backend.h"
#include "pegaflow/abi/ext/cancel.h"
#include "pegaflow/abi/ext/notify.h"
#include "pegaflow/abi/ext/stream.h"
#include "tools/conformance/conformance.hpp"

namespace pegaflow::conformance {

// How a check says that it failed or does not apply; caught by the runner, never leaves the library.
struct Failed : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct Skipped : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// The module cannot be used at all; `check` names what it failed.
struct Unusable : Failed {
    Unusable(const char* which, const std::string& what) : Failed(what), check(which) {}
    const char* check;
};

#define PEGA_EXPECT(condition, ...)                                                                                          \
    do {                                                                                                                     \
        if (!(condition)) throw ::pegaflow::conformance::Failed(std::string(#condition " does not hold: ") + (__VA_ARGS__)); \
    } while (false)

// The module under test and the host that it sees.
class Module {
public:
    // Throws Unusable.
    explicit Module(const Options& options);
    ~Module();
    Module(const Module&) = delete;
    Module& operator=(const Module&) = delete;

    const pega_entry* entry = nullptr;
    const pega_backend_table* backend = nullptr;
    const pega_region_table* region = nullptr;
    const pega_channel_table* channel = nullptr;
    const pega_completion_table* completion = nullptr;
    pega_host host{};
    std::vector<pega_option> options;

private:
    const pega_entry* load(const std::string& path);
    static core::BackendTables tables(const pega_entry* entry, const std::string& path);
    static const void* extension(void* context, const char* id);
    static const pega_entry* find(void* context, const char* name);

    std::vector<std::string> texts_;
    std::vector<core::Library> libraries_;
    std::map<std::string, const pega_entry*> by_name_;
};

class Fixture;

// Bytes on each side of a transfer: the region under test and a shadow that says what must be there. The region goes before its
// bytes.
struct Memory {
    Memory() = default;
    Memory(Memory&& other) noexcept { *this = std::move(other); }
    Memory& operator=(Memory&& other) noexcept {
        std::swap(owner, other.owner);
        std::swap(region, other.region);
        std::swap(host, other.host);
        std::swap(shadow, other.shadow);
        return *this;
    }
    ~Memory();

    Fixture* owner = nullptr;  // null = the region is not ours to unregister
    pega_region* region = nullptr;
    std::vector<std::uint8_t> host;    // the bytes themselves when the region is registered by address
    std::vector<std::uint8_t> shadow;  // what they must be
};

class Fixture {
public:
    // Opens the device that stands at `which` among those that probe finds.
    explicit Fixture(const Module& module, std::uint64_t seed, std::uint32_t which = 0);
    ~Fixture();
    Fixture(const Fixture&) = delete;
    Fixture& operator=(const Fixture&) = delete;

    const Module& m;
    std::uint64_t seed;
    std::uint32_t device_count = 0;
    pega_device* device = nullptr;
    pega_device_info info{};
    pega_capabilities caps{};
    std::uint32_t remote_kind = PEGA_MEMORY_HOST;

    static constexpr std::uint64_t kBytes = 1 << 20;
#if defined(__SANITIZE_THREAD__)
    static constexpr std::uint64_t kLongBytes = 4 << 20;  // each word is looked at
#else
    static constexpr std::uint64_t kLongBytes = 32 << 20;  // take a while
#endif

    // A region of the device's own memory, and one of the kind it moves to, both with seeded bytes.
    Memory local(std::uint64_t bytes = kBytes);
    Memory remote(std::uint64_t bytes = kBytes);
    pega_channel* open_channel(std::uint32_t depth = 0, const void* address = nullptr, std::uint64_t length = 0);
    // The same, where a refusal is an answer.
    pega_status try_channel(std::uint32_t depth, const void* address, std::uint64_t length, pega_channel** out);
    void close_channel(pega_channel* channel);
    // Compares the region's bytes with the shadow.
    void expect_same(Memory& memory, const std::string& what);
    std::vector<std::uint8_t> read_back(Memory& memory);
    // Where processors address the region's bytes; null = nowhere.
    const std::uint8_t* bytes_of(const Memory& memory) const;
    using OnMark = std::function<void(const pega_completion&)>;
    // Submits and waits for the end; `on_mark` is called for each mark before it.
    pega_completion run(pega_channel* channel, pega_batch& batch, const OnMark& on_mark = {});
    // Polls until `count` batches have ended; each user_data at most once. Fails after `seconds`.
    std::map<std::uint64_t, pega_completion> wait(std::size_t count, const OnMark& on_mark = {}, double seconds = 120);
    // Polls for a while and fails if anything comes.
    void expect_silence(double seconds = 0.02);
    std::uint64_t next_user_data() { return ++user_data_; }
    pega_batch flat(std::uint32_t op, Memory& local, Memory& remote, const std::vector<std::uint64_t>& from,
                    const std::vector<std::uint64_t>& to, const std::vector<std::uint64_t>& lengths);
    pega_batch spans(std::uint32_t op, const std::vector<pega_span>& list, const std::vector<std::uint64_t>& local_index,
                     const std::vector<std::uint64_t>& remote_index);
    template <class T>
    const T* extension(const char* id) const {
        return static_cast<const T*>(m.backend->extension(device, id));
    }
    // The extension that this capability promises. Throws Skipped when it is not claimed, Failed when it is and is missing.
    template <class T>
    const T& claimed(std::uint32_t flag, const char* id) const {
        if (!has(flag)) throw Skipped(std::string("not offered: ") + id);
        const T* table = extension<T>(id);
        if (table == nullptr) throw Failed(std::string("capabilities claim it, and there is no table ") + id);
        return *table;
    }
    std::uint64_t now() const { return m.host.now_ns(m.host.context); }
    std::uint64_t round(std::uint64_t value) const { return value / caps.alignment * caps.alignment; }
    bool has(std::uint32_t flag) const { return (caps.flags & flag) != 0; }

    // Closes the device with all that is open on it.
    void close_device();
    // Unregisters a region before its memory goes.
    void drop(Memory& memory) noexcept;
    // The region was unregistered otherwise.
    void forget(Memory& memory) noexcept;

private:
    Memory make(std::uint32_t kind, std::uint64_t bytes, std::uint64_t salt);
    void write_seeded(Memory& memory);
    std::map<std::uint64_t, pega_completion> poll_until_ended(std::size_t count, const OnMark& on_mark, double seconds);
    // Before a check that failed lets go of what its batches borrowed, they end.
    void abandon_batches();

    std::vector<pega_channel*> channels_;
    std::vector<pega_region*> regions_;
    std::vector<std::vector<std::uint8_t>> orphans_;  // bytes of regions that stay registered; freed after the device
    std::uint64_t user_data_ = 0;
    std::uint64_t salt_ = 0;
};

struct Check {
    const char* name;
    void (*run)(Fixture&);
};

// The parts of the suite.
std::vector<Check> batch_checks();
std::vector<Check> mark_checks();
std::vector<Check> digest_checks();
std::vector<Check> queue_checks();
std::vector<Check> life_checks();
std::vector<Check> peer_checks();
std::vector<Check> durable_checks();

}  // namespace pegaflow::conformance

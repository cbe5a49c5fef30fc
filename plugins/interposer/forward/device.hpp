// SPDX-License-Identifier: Apache-2.0
// device.hpp - what a wrapped device, region, channel and event are made of: the inner handle, and what is held back around it.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "forward.hpp"
#include "pegaflow/abi/ext/digest.h"
#include "pegaflow/abi/ext/durable.h"
#include "pegaflow/abi/ext/notify.h"
#include "pegaflow/abi/ext/stream.h"
#include "spoiler.hpp"

struct pega_region {
    pega_device* device;
    pega_region* inner;
    bool read_only = false;
};

struct pega_event {
    pega_device* device;
    pega_event* inner;
};

struct pega_channel {
    pega_device* device;
    pega_channel* inner;
    bool closed = false;  // to batches; guarded by the device's mutex
};

namespace interposer {

struct InnerTables {
    const pega_backend_table* backend = nullptr;
    const pega_region_table* region = nullptr;
    const pega_channel_table* channel = nullptr;
    const pega_completion_table* completion = nullptr;
};

// A batch under way: what the inner back end was given must stay until its end.
struct Pending {
    pega_channel* channel = nullptr;
    pega_batch batch{};  // as the caller gave it
    Verdict verdict;
    std::uint64_t submitted_ns = 0;
    std::uint64_t begin_ns = 0;  // a stuck batch: when it goes to the inner back end; 0 = it has gone
    bool beginning = false;      // it is going there just now
    bool stuck() const noexcept { return begin_ns != 0 || beginning; }

    // What the inner back end gets instead of the caller's batch, spans and options.
    pega_batch inner{};
    std::vector<pega_span> spans;
    pega_stream_option stream{};
    pega_notify_option notify{};
    pega_durable_option durable{};
    pega_digest_option digest{};
};

// A completion that the caller has not seen yet.
struct Held {
    pega_completion record;
    std::uint64_t due_ns;         // 0 = at once
    std::uint64_t until_next_ns;  // not before another one, and then no longer than this; 0 = whenever
};

}  // namespace interposer

struct pega_device {
    const pega_host* host = nullptr;
    interposer::InnerTables inner;
    pega_device* device = nullptr;
    std::string inner_name;
    std::unique_ptr<interposer::Hooks> hooks;
    interposer::Spoiler spoiler;
    int epoll_fd = -1;
    int event_fd = -1;
    int timer_fd = -1;
    std::deque<pega_completion> arrived;  // from the inner back end; the poller's own

    std::mutex submitting;  // the poller submits beside the callers; taken before `mutex`
    std::mutex mutex;
    std::condition_variable begun;                                          // stuck batches have gone to the inner back end
    std::map<std::uint64_t, std::unique_ptr<interposer::Pending>> pending;  // by user_data; guarded by mutex
    std::deque<interposer::Held> held;                                      // guarded by mutex
    // What is open and registered: wrappers that go with the device when nobody closed them before. Guarded by mutex.
    std::map<const pega_channel*, std::unique_ptr<pega_channel>> channels;
    std::map<const pega_region*, std::unique_ptr<pega_region>> regions;

    pega_device() = default;
    pega_device(const pega_device&) = delete;
    pega_device& operator=(const pega_device&) = delete;
    ~pega_device();
    std::uint64_t now() const { return host->now_ns(host->context); }
    // Makes the poller look. [any]
    void wake() const;
};

namespace interposer {

// Ends the batches that hang on a channel, or only the one with this user_data. The mutex is held. Returns how many. [any]
std::size_t end_hanging(pega_device& device, const pega_channel* channel, const std::uint64_t* user_data, std::int32_t native);

// Gives an end to the poller, later or out of order as the verdict says. The mutex is held. [any]
void hold(pega_device& device, const Pending& pending, const pega_completion& record);

// Takes what the inner back end has to say into `arrived`. From the poller.
void poll_inner(pega_device& device);

// Hands the stuck batches whose time has come to the inner back end. The mutex is not held. [any]
void begin_stuck(pega_device& device);

// The end of a batch that the inner back end never saw. [any]
pega_completion terminal(const Pending& pending, std::int32_t status, std::int32_t native);

pega_status cancel(pega_channel* channel, std::uint64_t user_data);
pega_status region_info(pega_region* region, pega_region_info* out);
const void* extension(pega_device* device, const char* id);

extern const pega_region_table kRegionTable;
extern const pega_channel_table kChannelTable;
extern const pega_completion_table kCompletionTable;

}  // namespace interposer

// SPDX-License-Identifier: Apache-2.0
// Checks of what is in flight, and of what capabilities claim: full queues, regions that are held.
//
// Batches are held back by an event where the host can do that. Elsewhere nobody polls, so that nothing ends; a back end that
// ends its batches all the same is passed over, unless their bytes show that they are still under way.
#include <fmt/format.h>

#include <algorithm>

#include "tools/conformance/events.hpp"

namespace pegaflow::conformance {
namespace {

const std::vector<std::uint64_t> kZero = {0};

// Keeps the batches that it is asked to in flight, until they are let go.
class Hold {
public:
    explicit Hold(Fixture& f) : f_(f), event_(try_held_event(f)), option_(stream_option(event_, nullptr)) {}
    void keep(pega_batch& batch) const {
        if (event_ != nullptr) batch.options = &option_.base;
    }
    void let_go() const {
        if (event_ != nullptr) stream_of(f_).signal(event_, nullptr);
    }
    // After the last batch has ended.
    void destroy() const {
        if (event_ != nullptr) stream_of(f_).destroy(event_);
    }
    // What it means when the back end does as if batches were over: without an event it may have ended them by itself.
    void expect_kept(bool kept, bool under_way, const std::string& what) const {
        if (!kept && event_ == nullptr && !under_way) throw Skipped("this back end ends batches that nobody polls: " + what);
        PEGA_EXPECT(kept, what);
    }

private:
    Fixture& f_;
    pega_event* event_;
    pega_stream_option option_;
};

// How many batches of `length` bytes, one after the other, have moved: as far as processors see it.
std::size_t count_landed(const Memory& from, const Memory& to, std::uint64_t length, std::size_t count) {
    std::size_t landed = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const auto at = static_cast<std::ptrdiff_t>(i * length);
        const auto end = at + static_cast<std::ptrdiff_t>(length);
        landed +=
            to.host.empty() || std::equal(from.shadow.begin() + at, from.shadow.begin() + end, to.host.begin() + at) ? 1 : 0;
    }
    return landed;
}

void queue_full_starts_nothing(Fixture& f) {
    constexpr std::uint64_t kPlaces = 64;
    const std::vector<std::uint64_t> length = {f.round(Fixture::kBytes / kPlaces)};
    std::vector<std::uint64_t> places(kPlaces);
    for (std::size_t i = 0; i < kPlaces; ++i) places[i] = i * length[0];
    for (const std::uint32_t depth : {1U, 2U}) {
        Memory local = f.local();
        Memory remote = f.remote();
        const Hold hold(f);
        pega_channel* channel = f.open_channel(depth);
        pega_batch batch{};
        std::size_t accepted = 0;
        pega_status status = PEGA_OK;
        while (accepted < kPlaces && status == PEGA_OK) {
            batch = f.flat(PEGA_OP_WRITE, local, remote, kZero, kZero, length);
            batch.local_offsets = batch.remote_offsets = &places[accepted];
            hold.keep(batch);
            status = f.m.channel->submit(channel, &batch);
            accepted += status == PEGA_OK ? 1 : 0;
        }
        PEGA_EXPECT(status == PEGA_OK || status == PEGA_QUEUE_FULL,
                    fmt::format("status {} after {} batches", status, accepted));
        const bool under_way = status == PEGA_OK && count_landed(local, remote, length[0], accepted) + depth < accepted;
        hold.let_go();
        const auto ended = f.wait(accepted);
        PEGA_EXPECT(ended.contains(batch.user_data) == (status == PEGA_OK), "the end of a batch that was refused");
        f.expect_silence();
        hold.expect_kept(status == PEGA_QUEUE_FULL, under_way,
                         fmt::format("{} batches were accepted on a queue of {} and none was polled", accepted, depth));
        PEGA_EXPECT(accepted >= 1, "nothing was accepted");
        // The refused one left its place as it was, and is taken now.
        std::copy_n(local.shadow.begin(), accepted * length[0], remote.shadow.begin());
        f.expect_same(remote, "remote, after a refused batch");
        PEGA_EXPECT(f.run(channel, batch).status == PEGA_OK, "the refused batch, submitted again");
        std::copy_n(local.shadow.begin() + static_cast<std::ptrdiff_t>(places[accepted]), length[0],
                    remote.shadow.begin() + static_cast<std::ptrdiff_t>(places[accepted]));
        f.expect_same(remote, "remote, after the refused batch was submitted again");
        hold.destroy();
    }
}

void regions_in_use_stay(Fixture& f) {
    Memory local = f.local();
    Memory remote = f.remote();
    const Hold hold(f);
    pega_channel* channel = f.open_channel();
    const std::vector<std::uint64_t> length = {Fixture::kBytes};
    pega_batch batch = f.flat(PEGA_OP_WRITE, local, remote, kZero, kZero, length);
    hold.keep(batch);
    PEGA_EXPECT(f.m.channel->submit(channel, &batch) == PEGA_OK, "submit");
    bool kept = true;
    bool under_way = false;
    for (Memory* side : {&local, &remote}) {
        const pega_status status = f.m.region->unregister(side->region);
        if (status == PEGA_OK) f.forget(*side);
        PEGA_EXPECT(status == PEGA_OK || status == PEGA_INVALID, fmt::format("status {}", status));
        kept = kept && status == PEGA_INVALID;
        under_way = under_way || (status == PEGA_OK && count_landed(local, remote, length[0], 1) == 0);
    }
    hold.let_go();
    PEGA_EXPECT(f.wait(1).at(batch.user_data).status == PEGA_OK, "the end of a batch whose regions were to go");
    hold.destroy();
    hold.expect_kept(kept, under_way, "a region was unregistered under a batch");
    std::copy(local.shadow.begin(), local.shadow.end(), remote.shadow.begin());
    f.expect_same(remote, "remote");
    for (Memory* side : {&local, &remote}) {
        PEGA_EXPECT(f.m.region->unregister(side->region) == PEGA_OK, "unregister, after the end");
        f.forget(*side);
    }
}

void claims_are_kept(Fixture& f) {
    const auto expect = [](bool member, const char* id) {
        PEGA_EXPECT(member, fmt::format("capabilities claim it, and the table {} lacks members", id));
    };
    if (f.has(PEGA_CAP_CANCEL)) {
        const auto* t = &f.claimed<pega_ext_cancel>(PEGA_CAP_CANCEL, PEGA_EXT_CANCEL);
        expect(PEGA_HAS(pega_ext_cancel, t, cancel), PEGA_EXT_CANCEL);
    }
    if (f.has(PEGA_CAP_NOTIFY)) {
        const auto* t = &f.claimed<pega_ext_notify>(PEGA_CAP_NOTIFY, PEGA_EXT_NOTIFY);
        expect(PEGA_HAS(pega_ext_notify, t, count) && PEGA_HAS(pega_ext_notify, t, consume), PEGA_EXT_NOTIFY);
    }
    if (f.has(PEGA_CAP_STREAM)) {
        const auto* t = &f.claimed<pega_ext_stream>(PEGA_CAP_STREAM, PEGA_EXT_STREAM);
        expect(PEGA_HAS(pega_ext_stream, t, create) && PEGA_HAS(pega_ext_stream, t, wrap) &&
                   PEGA_HAS(pega_ext_stream, t, export_event) && PEGA_HAS(pega_ext_stream, t, import_event) &&
                   PEGA_HAS(pega_ext_stream, t, signal) && PEGA_HAS(pega_ext_stream, t, query) &&
                   PEGA_HAS(pega_ext_stream, t, destroy),
               PEGA_EXT_STREAM);
    }
    std::uint64_t length = 0;
    const pega_status address = f.m.backend->address(f.device, nullptr, 0, &length);
    PEGA_EXPECT(address == (f.has(PEGA_CAP_PEERS) ? PEGA_NO_MEMORY : PEGA_UNSUPPORTED),
                fmt::format("the device's address, asked for without room: status {}", address));
    PEGA_EXPECT(f.extension<void>("pega.ext.nothing/1") == nullptr, "an extension that does not exist");
}

}  // namespace

std::vector<Check> queue_checks() {
    return {{"claims_are_kept", claims_are_kept},
            {"queue_full_starts_nothing", queue_full_starts_nothing},
            {"regions_in_use_stay", regions_in_use_stay}};
}

}  // namespace pegaflow::conformance

// SPDX-License-Identifier: Apache-2.0
// link.hpp - one channel's path to its peer, or the peer's end of it: control connection, communicator, parts in flight.
//
// The opener alone announces parts; its order of announcing is the order in which both sides post to the one communicator, so
// the two can never disagree. A part is posted by the target when it says yes, and by the opener when it hears the yes: neither
// posts what the other will not. The link of a device to itself has neither connection nor communicator: it copies.
// Everything happens with the device's mutex held and its context current.
#pragma once

#include <array>
#include <memory>

#include "batch.hpp"
#include "connection.hpp"
#include "mover.hpp"

namespace nccl_backend {

class Link {
public:
    static pega_status make_self(pega_device& device, pega_channel* channel, std::unique_ptr<Link>& out);
    // Begins to connect. CORRUPT, UNSUPPORTED, PEER_LOST, NO_MEMORY.
    static pega_status make_opener(pega_device& device, pega_channel* channel, const Address& address,
                                   std::unique_ptr<Link>& out);
    // Takes a visitor that has shown the token.
    static pega_status make_target(pega_device& device, std::unique_ptr<Connection> connection, const Hello& hello,
                                   std::unique_ptr<Link>& out);
    ~Link();

    const Id& peer() const noexcept { return peer_; }
    bool is_self() const noexcept { return role_ == Role::kSelf; }
    // OK, PENDING, or how it broke.
    pega_status state() const noexcept;
    bool gone() const noexcept { return state_ == State::kGone; }
    bool busy() const noexcept;  // something only polling moves
    void woken(int fd) noexcept {
        if (control_ != nullptr) control_->woken(fd);
    }

    void advance();
    // The channel has no batches any more and goes; the link takes its leave of the peer and goes too.
    void release_channel();
    // The device closes: nothing of the peer's is begun any more, and what hardware has is waited for.
    void shut_down();

private:
    enum class Role { kSelf, kOpener, kTarget };
    enum class State { kConnecting, kJoining, kOpen, kLeaving, kDraining, kBroken, kGone };
    enum class Stage { kAnnounced, kReady, kPosting, kMoving, kLanded, kRefused };

    struct Part {
        std::uint64_t id = 0;
        Batch* batch = nullptr;  // null at the target
        std::uint32_t op = PEGA_OP_READ;
        bool separate = false;
        std::vector<Run> runs;             // of this side; in the order of the message
        std::vector<Copy> copies;          // of the link to itself
        std::vector<pega_region*> pinned;  // at the target and of the link to itself
        std::uint64_t bytes = 0, spans_after = 0;
        bool last = false, has_value = false;
        std::uint32_t value = 0;
        Stage stage = Stage::kAnnounced;
        cuda_backend::StagingRing::Slot* slot = nullptr;
        Event end = nullptr;
        bool done = false;  // the target has said that the bytes are there
        std::uint64_t since_ns = 0;
    };

    Link(pega_device& device, Role role) : device_(device), role_(role) {}

    // link.cpp: how it begins and ends.
    pega_status open_mover();
    void handle_frames();
    void handle(const Frame& frame);
    void welcomed(const Welcome& welcome);
    void refused(const Refuse& refuse);
    bool join(int rank);
    void watch_join();
    void check_time();
    void fail(pega_status status, std::int32_t native, const char* why);
    void drain();
    void leave();
    void drop_communicator() noexcept;

    // link_parts.cpp: what both sides do with a part.
    bool room() const noexcept { return count_ < parts_.size(); }
    Part& part(std::size_t i) noexcept { return parts_[(first_ + i) % parts_.size()]; }
    const Part& part(std::size_t i) const noexcept { return parts_[(first_ + i) % parts_.size()]; }
    Part& new_part();
    void pop_part();
    bool sends(const Part& part) const noexcept { return (part.op == PEGA_OP_WRITE) == (role_ == Role::kOpener); }
    static void add_run(Part& part, DevicePointer at, std::uint64_t length, bool host);
    static bool staged(const Part& part) noexcept;
    void post_ready();
    void post(Part& part);
    CudaResult prepare(Part& part);
    NcclResult queue_messages(const Part& part);
    void posted(Part& part);
    void watch_ends();
    bool watch_errors();

    // link_opener.cpp: batches become parts, parts end batches.
    void feed();
    bool ends_unstarted(Batch& batch);
    bool starts(Batch& batch);
    void feed_batch(Batch& batch);
    pega_status fill_self(Part& part);
    void announce(Part& part);
    void answered(const Answer& answer);
    void landed_there(const Done& done);
    void part_ended(Part& part);
    void settle();
    bool finish(Batch& batch);
    void end_batch(Batch& batch);
    void report(const Batch& batch, std::uint32_t flags);

    // link_target.cpp
    void announced(ByteSpan body);
    pega_status take(const Announcement& announcement, Part& part);
    void served(Part& part);
    void unpin(Part& part) noexcept;

    pega_device& device_;
    Role role_;
    State state_ = State::kConnecting;
    Id peer_{};
    pega_channel* channel_ = nullptr;
    std::unique_ptr<Connection> control_;
    UniqueId unique_id_{};
    Comm comm_ = nullptr;
    Mover mover_;
    bool mover_open_ = false;
    std::uint64_t chunk_bytes_ = 0;
    std::uint64_t step_since_ns_ = 0;  // of connecting, joining or leaving
    bool bye_heard_ = false;
    pega_status broken_ = PEGA_OK;
    std::int32_t broken_native_ = 0;
    Event drained_comm_ = nullptr, drained_side_ = nullptr;

    std::array<Part, Mover::kMostParts> parts_;  // a ring, in order of announcing
    std::size_t first_ = 0, count_ = 0;
    std::uint64_t next_part_ = 1, next_batch_ = 1;
    std::uint64_t refused_batch_ = 0;  // at the target: the rest of it is refused too
    pega_status refused_status_ = PEGA_OK;
    Cut cut_;                    // keeps its memory
    Announcement announcement_;  // likewise
};

}  // namespace nccl_backend

// SPDX-License-Identifier: Apache-2.0
// load_state.hpp - the server's side of the object in shared memory in which a load reports its outcome.
//
// Layout (that of the existing PegaFlow): at byte 0 a u64 with the offset of the record; the record is u32 magic, u32 version,
// i64 state, stored with release order: 0 pending, 1 success, -1 error. Our clients add the word kLoadStateLocked at byte 24:
// its creator holds a shared flock on the object as long as it lives, so an object that has the word and no lock is nobody's.
//
// The server reads and writes the object by its descriptor and maps nothing: a page that is gone, because the client shortened
// the object or there is no memory left, is then an error and not a signal.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

#include "pegaflow/result.hpp"

namespace pegaflow::rpc {

inline constexpr std::uint32_t kLoadStateMagic = 0x50464C44;
inline constexpr std::uint32_t kLoadStateVersion = 1;
inline constexpr std::size_t kLoadStateBytes = 32;
inline constexpr std::size_t kLoadStateLockedAt = 24;
inline constexpr std::uint64_t kLoadStateLocked = 0x4B434F4C41474550;  // "PEGALOCK"
inline constexpr char kLoadStatePrefix[] = "pega_load_";
inline constexpr std::int64_t kLoadPending = 0;
inline constexpr std::int64_t kLoadSuccess = 1;
inline constexpr std::int64_t kLoadError = -1;

// What a client maps.
struct LoadStateRecord {
    std::atomic<std::uint32_t> magic;
    std::atomic<std::uint32_t> version;
    std::atomic<std::int64_t> state;
};

// What an object was called when it was attached. Its creator removes the name; this is for creators that died.
struct LoadStateName {
    std::string name;
    std::uint64_t device = 0, inode = 0;  // of the object, so that another one of the same name stays

    // True while the name stands for the object. [any]
    bool linked() const noexcept;
    // Removes the name while it stands for the object; whoever has it mapped keeps it. [any]
    void unlink() const noexcept;
};

// Removes the names of objects whose creators hold no lock any more, though they said that they would; returns how many. [any]
std::size_t remove_abandoned_load_states();

// An attached object; the descriptor goes with it, the name stays its creator's. Move-only.
class AttachedLoadState {
public:
    // kInternal "LoadState: ..." when there is no such object, or it is not one. [any]
    static Result<AttachedLoadState> attach(const std::string& name);
    AttachedLoadState(AttachedLoadState&& other) noexcept;
    AttachedLoadState& operator=(AttachedLoadState&& other) noexcept;
    ~AttachedLoadState();

    const LoadStateName& name() const noexcept { return name_; }
    // Publishes the outcome; the first one stays. False when the object does not take it. [any]
    bool finish(std::int64_t state) noexcept;

private:
    AttachedLoadState(int fd, std::uint64_t record, LoadStateName name) : fd_(fd), record_(record), name_(std::move(name)) {}
    int fd_;
    std::uint64_t record_;  // where it is in the object
    std::atomic<bool> finished_{false};
    LoadStateName name_;
};

}  // namespace pegaflow::rpc

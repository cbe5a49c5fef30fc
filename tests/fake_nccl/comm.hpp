// SPDX-License-Identifier: Apache-2.0
// comm.hpp - communicators of two ranks over a stream socket in the abstract namespace, in one process or in two.
//
// As nasty as the real thing where it matters: groups are queued on their stream some time after ncclGroupEnd returned, a
// message whose peer is gone never ends by itself, and messages whose sizes differ end the process.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace fake_nccl {

struct Message {
    unsigned char* at = nullptr;
    std::size_t bytes = 0;
    bool send = false;
    void* stream = nullptr;
};

// What work on a stream needs; it outlives the communicator when that is aborted. Owners: the communicator, its queued groups.
struct Wire {
    ~Wire();
    std::atomic<int> fd{-1};
    std::atomic<bool> aborted{false};
    // Moves the messages of one group, both directions at once; returns early when aborted.
    void run(const std::vector<Message>& messages);
};

class Comm {
public:
    // Begins to meet the other rank; rank 0 listens under `name`.
    Comm(std::string name, int rank, bool blocking);
    ~Comm();  // aborts

    bool in_progress() const { return !met_ || posting_; }
    bool failed() const { return failed_; }
    // What the call under way returns: success, or that it goes on; one that blocks waits.
    int settle() const;
    // Queues a group on its stream, a little later. False while another is under way.
    bool post(std::vector<Message> messages);

private:
    void meet();
    std::string name_;
    int rank_;
    bool blocking_;
    std::shared_ptr<Wire> wire_ = std::make_shared<Wire>();
    std::atomic<bool> met_{false}, posting_{false}, failed_{false};
    std::thread meeting_, poster_;
};

}  // namespace fake_nccl

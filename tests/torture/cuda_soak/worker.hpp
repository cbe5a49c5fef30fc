// SPDX-License-Identifier: Apache-2.0
// worker.hpp - threads of the soak that transfer within one process: sessions of a device, buffers and channels, and in each a
// number of rounds of transfers at the same time.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>

#include "tests/torture/cuda_soak/flight.hpp"
#include "tests/torture/cuda_soak/phase.hpp"

namespace pegaflow::soak {

// Asks for transfers to end early, from a thread of its own.
class Canceller {
public:
    explicit Canceller(Report& report);
    ~Canceller();
    // Both stay alive, and the channel open, until `settle` has returned.
    void ask(Flight& flight, std::chrono::microseconds after);
    // Waits until all has been asked. A failure is thrown.
    void settle();

private:
    void run();
    struct Request {
        Flight* flight = nullptr;
        std::chrono::steady_clock::time_point when;
    };
    Report& report_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Request> requests_;  // guarded by mutex_, as the following
    bool busy_ = false, stop_ = false;
    std::string problem_;
    std::thread thread_;
};

// Cancels now; "" unless it was refused for a reason other than that the transfer has ended.
std::string cancel(Flight& flight, Report& report);

// The body of one thread: until the phase is over.
void run_worker(Phase& phase, const std::string& device, std::uint64_t number);

}  // namespace pegaflow::soak

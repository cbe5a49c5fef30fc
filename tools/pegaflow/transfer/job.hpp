// SPDX-License-Identifier: Apache-2.0
// job.hpp - one logical transfer of a benchmark: a scatter in one submission, or in as many as --batch makes of it.
#pragma once

#include <cstdint>
#include <vector>

#include "tools/pegaflow/transfer/geometry.hpp"

namespace pegaflow::cli {

// Reusable after `wait`. Not movable while submitted. [serial]
class Job {
public:
    Job() = default;
    Job(Job&&) noexcept = default;
    Job& operator=(Job&&) noexcept = default;
    ~Job();  // waits for what is under way

    // `batch`: blocks a submission; 0 = all in one. `digests` are asked for along with the bytes.
    void fill(const Scatter& scatter, bool read, std::uint64_t batch, bool digests);
    // Submits all parts. On failure some may be under way; `wait` waits for those.
    Result<void> submit(Channel& channel);
    // Until every part has ended; the first failure among them.
    Result<void> wait();
    // One an index; empty when the device computed none. After `wait`.
    std::vector<std::uint64_t> digest_sums() const;

private:
    std::vector<Transfer> parts_;
    std::vector<Completion> under_way_;
};

}  // namespace pegaflow::cli

// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/transfer/job.hpp"

namespace pegaflow::cli {

Job::~Job() { static_cast<void>(wait()); }

void Job::fill(const Scatter& scatter, bool read, std::uint64_t batch, bool digests) {
    const std::size_t blocks = scatter.local.size();
    const std::size_t part = batch == 0 ? blocks : batch;
    parts_.resize((blocks + part - 1) / part);
    for (std::size_t i = 0; i < parts_.size(); ++i) {
        scatter.fill(parts_[i], read, i * part, part);
        if (digests) parts_[i].digests();
    }
    under_way_.reserve(parts_.size());
}

Result<void> Job::submit(Channel& channel) {
    for (Transfer& part : parts_) {
        PEGA_ASSIGN(Completion completion, channel.submit_wait(part));
        under_way_.push_back(std::move(completion));
    }
    return {};
}

Result<void> Job::wait() {
    Result<void> outcome;
    for (const Completion& completion : under_way_) {
        const auto done = completion.wait();
        if (!done && outcome) outcome = pegaflow::fail(done.error());
    }
    under_way_.clear();
    return outcome;
}

std::vector<std::uint64_t> Job::digest_sums() const {
    std::vector<std::uint64_t> out;
    for (const Transfer& part : parts_) {
        const auto sums = part.digest_sums();
        if (sums.empty()) return {};
        out.insert(out.end(), sums.begin(), sums.end());
    }
    return out;
}

}  // namespace pegaflow::cli

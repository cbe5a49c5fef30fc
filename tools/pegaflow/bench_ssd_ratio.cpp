// SPDX-License-Identifier: Apache-2.0
// What the repetitions of `pegaflow bench ssd` come to.
#include <algorithm>
#include <utility>

#include "tools/pegaflow/bench_ssd.hpp"

namespace pegaflow::cli::ssd {

double median(std::vector<double> values) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    const std::size_t n = values.size();
    return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

double percent_of(const std::vector<Run>& reference, const std::vector<Run>& ours, double Run::* member) {
    std::vector<double> percent;
    for (std::size_t i = 0; i < std::min(reference.size(), ours.size()); ++i) {
        if (reference[i].*member > 0) percent.push_back(100 * ours[i].*member / reference[i].*member);
    }
    return median(std::move(percent));
}

}  // namespace pegaflow::cli::ssd

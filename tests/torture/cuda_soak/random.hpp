// SPDX-License-Identifier: Apache-2.0
// random.hpp - a stream of choices that follows from numbers: the same seed, thread and iteration choose the same again.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <vector>

namespace pegaflow::soak {

// A bijection that scatters: neighbours become unrelated.
constexpr std::uint64_t scatter(std::uint64_t x) noexcept {
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

class Random {
public:
    using result_type = std::uint64_t;
    explicit Random(std::initializer_list<std::uint64_t> seeds) {
        for (const std::uint64_t seed : seeds) state_ = scatter(state_ ^ seed);
    }
    static constexpr std::uint64_t min() { return 0; }
    static constexpr std::uint64_t max() { return UINT64_MAX; }
    std::uint64_t operator()() noexcept { return scatter(state_++); }

    // 0 when `count` is 0.
    std::uint64_t below(std::uint64_t count) noexcept { return count == 0 ? 0 : (*this)() % count; }
    bool chance(unsigned percent) noexcept { return below(100) < percent; }
    // From `least` to `most`, every magnitude as likely as another.
    std::uint64_t spread(std::uint64_t least, std::uint64_t most) noexcept {
        if (most <= least) return least;
        unsigned doublings = 0;
        while (doublings < 63 && (least << doublings) < most) ++doublings;
        const std::uint64_t low = least << below(doublings);
        return std::min(low + below(low), most);
    }
    template <class Container>
    auto& pick(Container& all) {
        return all[below(std::size(all))];
    }
    template <class Container>
    void shuffle(Container& all) {
        for (std::size_t i = all.size(); i > 1; --i) std::swap(all[i - 1], all[below(i)]);
    }

private:
    std::uint64_t state_ = 0;
};

}  // namespace pegaflow::soak

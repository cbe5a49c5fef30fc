// SPDX-License-Identifier: Apache-2.0
// metric_families.hpp - families of metrics made from the engine's numbers at a scrape.
#pragma once

#include <prometheus/metric_family.h>

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <utility>
#include <vector>

#include "pegaflow/engine.hpp"

namespace pegaflow::server {

inline double number(std::uint64_t value) noexcept { return static_cast<double>(value); }

// Names and helps are literals.
class MetricFamilies {
public:
    explicit MetricFamilies(std::vector<prometheus::MetricFamily> first) : families_(std::move(first)) {}

    void gauge(const char* name, const char* help, double value) { add(name, help, prometheus::MetricType::Gauge, value); }
    void gauge(const char* name, const char* help, std::uint64_t value) { gauge(name, help, number(value)); }
    void counter(const char* name, const char* help, std::uint64_t value) {
        add(name, help, prometheus::MetricType::Counter, number(value));
    }
    // One value for each value of a label.
    struct Labelled {
        std::string_view label;
        double value;
    };
    void gauges(const char* name, const char* help, const char* label, const std::vector<Labelled>& values);
    void counters(const char* name, const char* help, const char* label, const std::vector<Labelled>& values);
    // A histogram for each value of a label; without a label when that is "".
    void histograms(const char* name, const char* help, const char* label,
                    std::initializer_list<std::pair<const char*, const Distribution*>> values);

    const std::vector<prometheus::MetricFamily>& all() const noexcept { return families_; }

private:
    prometheus::MetricFamily& add(const char* name, const char* help, prometheus::MetricType type);
    void add(const char* name, const char* help, prometheus::MetricType type, double value);

    std::vector<prometheus::MetricFamily> families_;
};

// What an SSD tier does.
void add_ssd_families(const TierStats& tier, MetricFamilies& families);

}  // namespace pegaflow::server

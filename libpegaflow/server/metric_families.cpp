// SPDX-License-Identifier: Apache-2.0
#include "server/metric_families.hpp"

namespace pegaflow::server {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

namespace {

void fill(MetricFamily& family, const char* label, const std::vector<MetricFamilies::Labelled>& values) {
    for (const auto& [text, value] : values) {
        ClientMetric metric;
        metric.label.push_back({label, std::string(text)});
        metric.counter.value = metric.gauge.value = value;
        family.metric.push_back(std::move(metric));
    }
}

}  // namespace

MetricFamily& MetricFamilies::add(const char* name, const char* help, MetricType type) {
    MetricFamily& family = families_.emplace_back();
    family.name = name;
    family.help = help;
    family.type = type;
    return family;
}

void MetricFamilies::add(const char* name, const char* help, MetricType type, double value) {
    ClientMetric metric;
    metric.counter.value = metric.gauge.value = value;
    add(name, help, type).metric.push_back(std::move(metric));
}

void MetricFamilies::gauges(const char* name, const char* help, const char* label, const std::vector<Labelled>& values) {
    fill(add(name, help, MetricType::Gauge), label, values);
}

void MetricFamilies::counters(const char* name, const char* help, const char* label, const std::vector<Labelled>& values) {
    fill(add(name, help, MetricType::Counter), label, values);
}

void MetricFamilies::histograms(const char* name, const char* help, const char* label,
                                std::initializer_list<std::pair<const char*, const Distribution*>> values) {
    MetricFamily& family = add(name, help, MetricType::Histogram);
    for (const auto& [text, distribution] : values) {
        ClientMetric metric;
        if (*label != '\0') metric.label.push_back({label, text});
        std::uint64_t below = 0;
        for (std::size_t i = 0; i < distribution->bounds.size(); ++i) {
            below += distribution->counts[i];
            metric.histogram.bucket.push_back({below, distribution->bounds[i]});
        }
        metric.histogram.sample_count = below + distribution->counts.back();
        metric.histogram.sample_sum = distribution->sum;
        family.metric.push_back(std::move(metric));
    }
}

}  // namespace pegaflow::server

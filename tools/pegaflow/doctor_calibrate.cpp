// SPDX-License-Identifier: Apache-2.0
// pegaflow doctor --calibrate: measures every device's ways to copy anew and shows the table that the back end chooses by.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <map>

#include "pegaflow/abi/ext/calibration.h"
#include "pegaflow/bytes.hpp"
#include "pegaflow/transfer.hpp"
#include "tools/pegaflow/verb.hpp"

namespace pegaflow::cli {
namespace {

constexpr int kBarWidth = 50;

std::vector<pega_path_rate> rates_of(const Device& device) {
    const auto* table = static_cast<const pega_ext_calibration*>(device.extension(PEGA_EXT_CALIBRATION));
    if (table == nullptr) return {};
    std::uint32_t count = 0;
    if (table->rates(device.handle(), nullptr, 0, &count) != PEGA_OK || count == 0) return {};
    std::vector<pega_path_rate> out(count);
    out.front().size = sizeof(pega_path_rate);
    if (table->rates(device.handle(), out.data(), count, &count) != PEGA_OK) return {};
    return out;
}

std::vector<std::string> paths_of(const std::vector<pega_path_rate>& rates) {
    std::vector<std::string> out;
    for (const pega_path_rate& r : rates) {
        if (std::find(out.begin(), out.end(), r.path) == out.end()) out.emplace_back(r.path);
    }
    return out;
}

double gb(std::uint64_t bytes_per_second) { return static_cast<double>(bytes_per_second) / 1e9; }

// One table: a line a fragment size, a column a path; the chosen one has a star.
void print_table(const std::vector<pega_path_rate>& rates, std::uint32_t op, std::uint64_t batch, std::ostream& out) {
    const auto paths = paths_of(rates);
    out << fmt::format("  {}, batches of {}, GB/s\n  {:>10}", op == PEGA_OP_READ ? "to the device" : "from the device",
                       format_size(batch), "fragment");
    for (const std::string& path : paths) out << fmt::format(" {:>8} ", path);
    out << '\n';
    std::map<std::uint64_t, std::string> lines;
    for (const pega_path_rate& r : rates) {
        if (r.op != op || r.batch_bytes != batch) continue;
        std::string& line = lines[r.fragment_bytes];
        if (line.empty()) line = fmt::format("  {:>10}", format_size(r.fragment_bytes));
        line += r.bytes_per_second == 0
                    ? fmt::format(" {:>8} ", "-")
                    : fmt::format(" {:>8.1f}{}", gb(r.bytes_per_second), (r.flags & PEGA_RATE_CHOSEN) ? '*' : ' ');
    }
    for (const auto& [fragment, line] : lines) out << line << '\n';
}

// The chosen path of the largest batches as bars.
void print_plot(const std::vector<pega_path_rate>& rates, std::uint32_t op, std::uint64_t batch, std::ostream& out) {
    std::uint64_t most = 1;
    for (const pega_path_rate& r : rates) most = std::max(most, r.bytes_per_second);
    for (const pega_path_rate& r : rates) {
        if (r.op != op || r.batch_bytes != batch || (r.flags & PEGA_RATE_CHOSEN) == 0) continue;
        const auto width = static_cast<int>(kBarWidth * r.bytes_per_second / most);
        std::string bar;
        for (int i = 0; i < width; ++i) bar += "█";
        out << fmt::format("  {:>10} |{}{} {:.1f} {}\n", format_size(r.fragment_bytes), bar,
                           std::string(static_cast<std::size_t>(kBarWidth - width), ' '), gb(r.bytes_per_second), r.path);
    }
}

boost::json::array to_json(const std::vector<pega_path_rate>& rates) {
    boost::json::array out;
    for (const pega_path_rate& r : rates) {
        out.push_back(boost::json::object{{"op", r.op == PEGA_OP_READ ? "read" : "write"},
                                          {"path", r.path},
                                          {"fragment_bytes", r.fragment_bytes},
                                          {"batch_bytes", r.batch_bytes},
                                          {"bytes_per_s", r.bytes_per_second},
                                          {"chosen", (r.flags & PEGA_RATE_CHOSEN) != 0},
                                          {"measured", (r.flags & PEGA_RATE_MEASURED) != 0}});
    }
    return out;
}

void print(const DeviceInfo& info, const std::vector<pega_path_rate>& rates, std::ostream& out) {
    const bool measured = (rates.front().flags & PEGA_RATE_MEASURED) != 0;
    out << fmt::format("{}: {}{}\n", info.name, info.text, measured ? "" : " (built-in estimates: it could not be measured)");
    std::vector<std::uint64_t> batches;
    for (const pega_path_rate& r : rates) {
        if (std::find(batches.begin(), batches.end(), r.batch_bytes) == batches.end()) batches.push_back(r.batch_bytes);
    }
    std::sort(batches.begin(), batches.end());
    for (const std::uint32_t op : {PEGA_OP_WRITE, PEGA_OP_READ}) {
        for (const std::uint64_t batch : batches) print_table(rates, op, batch, out);
        print_plot(rates, op, batches.back(), out);
    }
}

}  // namespace

void doctor_calibrate(const std::vector<std::string>& search_path, bool json, Context& context) {
    FabricOptions options{.search_path = search_path};
    options.options["cuda"]["calibrate"] = "force";
    auto fabric = Fabric::open(options);
    if (!fabric) return context.fail(fabric.error());
    boost::json::array devices;
    for (const DeviceInfo& info : (*fabric)->devices()) {
        if (info.backend != "cuda") continue;  // the others have one way to copy
        const auto device = (*fabric)->device(info.name);
        if (!device) return context.fail(device.error());
        const auto rates = rates_of(**device);
        if (rates.empty()) continue;
        devices.push_back(
            boost::json::object{{"device", info.name}, {"uuid", info.uuid}, {"text", info.text}, {"rates", to_json(rates)}});
        if (!json) print(info, rates, context.out);
    }
    if (json) {
        context.out << boost::json::serialize(
                           boost::json::object{{"schema", "pegaflow.calibration"}, {"devices", std::move(devices)}})
                    << "\n";
    } else if (devices.empty()) {
        context.out << "no device here has more than one way to copy; `pegaflow plugins` shows why cuda is not used\n";
    }
}

}  // namespace pegaflow::cli

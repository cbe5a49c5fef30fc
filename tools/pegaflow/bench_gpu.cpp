// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/bench_gpu.hpp"

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <fstream>

#include "backends/cuda/driver.hpp"

namespace pegaflow::cli {
namespace {

// Gigatransfers a second and lane, by generation.
constexpr std::array<double, 7> kSpeeds = {0, 2.5, 5, 8, 16, 32, 64};

std::string first_line(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

// "32.0 GT/s PCIe"; 0 for what is no speed ("Unknown").
int generation(const std::string& speed) {
    const double transfers = std::strtod(speed.c_str(), nullptr);
    for (std::size_t gen = 1; gen < kSpeeds.size(); ++gen) {
        if (transfers == kSpeeds[gen]) return static_cast<int>(gen);
    }
    return 0;
}

int lanes(const std::string& width) {
    const long count = std::strtol(width.c_str(), nullptr, 10);
    return count >= 1 && count <= 32 ? static_cast<int>(count) : 0;
}

// What uuids are compared by: hexadecimal digits, without "GPU-" and hyphens.
std::string digits(const std::string& uuid) {
    std::string out;
    for (const char c : uuid.starts_with("GPU-") ? uuid.substr(4) : uuid) {
        if (c != '-') out += c;
    }
    return out;
}

std::string digits(const cuda_backend::Uuid& uuid) {
    std::string out;
    for (const unsigned char byte : uuid.bytes) out += fmt::format("{:02x}", byte);
    return out;
}

}  // namespace

double Gpu::link_bytes_per_s() const noexcept {
    if (pcie_gen == 0 || pcie_width == 0) return 0;
    const double coding = pcie_gen >= 6 ? 1.0 : (pcie_gen >= 3 ? 128.0 / 130 : 0.8);
    return kSpeeds[static_cast<std::size_t>(pcie_gen)] * 1e9 / 8 * coding * pcie_width;
}

bool Gpu::is_slowed() const noexcept {
    return (pcie_gen != 0 && pcie_gen < most_gen) || (pcie_width != 0 && pcie_width < most_width);
}

Gpu read_link(const std::string& directory) {
    // 0x03....: a display controller, which compute GPUs are as well. A virtual machine may have something else at the place.
    if (!first_line(directory + "/class").starts_with("0x03")) return {};
    Gpu out;
    out.pcie_gen = generation(first_line(directory + "/current_link_speed"));
    out.pcie_width = lanes(first_line(directory + "/current_link_width"));
    out.most_gen = generation(first_line(directory + "/max_link_speed"));
    out.most_width = lanes(first_line(directory + "/max_link_width"));
    return out;
}

Gpu find_gpu(const std::string& uuid) {
    using namespace cuda_backend;
    Gpu out;
    std::string why;
    const Driver* driver = Driver::get(&why);
    int count = 0;
    if (driver == nullptr || driver->cuDeviceGetCount(&count) != kSuccess) return out;
    for (int i = 0; i < count; ++i) {
        cuda_backend::Device device = 0;
        Uuid own{};
        if (driver->cuDeviceGet(&device, i) != kSuccess || driver->cuDeviceGetUuid_v2(&own, device) != kSuccess) continue;
        if (digits(own) != digits(uuid)) continue;
        int domain = 0;
        int bus = 0;
        int slot = 0;
        driver->cuDeviceGetAttribute(&domain, kAttributePciDomain, device);
        driver->cuDeviceGetAttribute(&bus, kAttributePciBus, device);
        driver->cuDeviceGetAttribute(&slot, kAttributePciDevice, device);
        out = read_link(fmt::format("/sys/bus/pci/devices/{:04x}:{:02x}:{:02x}.0", domain, bus, slot));
        int version = 0;
        if (driver->cuDriverGetVersion(&version) == kSuccess)
            out.cuda = fmt::format("{}.{}", version / 1000, version % 1000 / 10);
        out.driver = first_line("/sys/module/nvidia/version");
        break;
    }
    return out;
}

}  // namespace pegaflow::cli

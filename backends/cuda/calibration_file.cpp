// SPDX-License-Identifier: Apache-2.0
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "calibration.hpp"

namespace cuda_backend {
namespace {

constexpr const char* kFirstLine = "pegaflow-cuda-calibration 1";

template <std::size_t kCount>
std::size_t index_of(const std::array<std::uint64_t, kCount>& list, std::uint64_t value) {
    std::size_t i = 0;
    while (i < kCount && list[i] != value) ++i;
    return i;
}

std::size_t path_of(const std::string& name) {
    std::size_t i = 0;
    while (i < kPaths && name != name_of(static_cast<Path>(i))) ++i;
    return i;
}

}  // namespace

std::string calibration_identity(const pega_device& device) {
    Uuid uuid{};
    int driver = 0;
    device.driver->cuDeviceGetUuid_v2(&uuid, device.device);
    device.driver->cuDriverGetVersion(&driver);
    std::ostringstream out;
    out << uuid_text(uuid) << " driver " << driver << " backend " << kVersion << " multiprocessors "
        << device.settings.max_multiprocessors << " chunk " << device.settings.staging_chunk;
    return out.str();
}

std::string calibration_path(const pega_device& device) {
    if (device.settings.calibration_dir.empty()) return "";
    Uuid uuid{};
    device.driver->cuDeviceGetUuid_v2(&uuid, device.device);
    return device.settings.calibration_dir + "/cuda-" + uuid_text(uuid) + ".txt";
}

bool read_calibration(const std::string& path, const std::string& identity, PathTable& table) {
    std::ifstream file(path);
    std::string line;
    if (!std::getline(file, line) || line != kFirstLine || !std::getline(file, line) || line != identity) return false;
    PathTable read;
    std::size_t points = 0;
    while (std::getline(file, line)) {
        std::istringstream words(line);
        std::string direction;
        std::string path_name;
        std::uint64_t fragment = 0;
        std::uint64_t batch = 0;
        double rate = -1;
        words >> direction >> path_name >> fragment >> batch >> rate;
        const std::size_t p = path_of(path_name);
        const std::size_t f = index_of(kFragments, fragment);
        const std::size_t b = index_of(kBatches, batch);
        if (!words || p == kPaths || f == kFragments.size() || b == kBatches.size() || !(rate >= 0) ||
            (direction != "d2h" && direction != "h2d")) {
            return false;
        }
        read.at(direction == "h2d", static_cast<Path>(p), f, b) = rate;
        ++points;
    }
    if (points != 2 * kPaths * kFragments.size() * kBatches.size()) return false;
    read.measured = true;
    table = read;
    return true;
}

// Under another name first, so that a reader never sees half a table.
bool write_calibration(const std::string& path, const std::string& identity, const PathTable& table) {
    std::error_code error;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
    const std::string draft = path + ".new";
    {
        std::ofstream file(draft, std::ios::trunc);
        file << kFirstLine << "\n" << identity << "\n";
        for (const bool to_gpu : {false, true}) {
            for (std::size_t p = 0; p < kPaths; ++p) {
                for (std::size_t f = 0; f < kFragments.size(); ++f) {
                    for (std::size_t b = 0; b < kBatches.size(); ++b) {
                        file << (to_gpu ? "h2d " : "d2h ") << name_of(static_cast<Path>(p)) << " " << kFragments[f] << " "
                             << kBatches[b] << " " << table.at(to_gpu, static_cast<Path>(p), f, b) << "\n";
                    }
                }
            }
        }
        if (!file.flush()) return false;
    }
    std::filesystem::rename(draft, path, error);
    return !error;
}

}  // namespace cuda_backend

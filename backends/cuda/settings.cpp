// SPDX-License-Identifier: Apache-2.0
#include "settings.hpp"

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace cuda_backend {
namespace {

class Reader {
public:
    Reader(const pega_host* host, const pega_option* options, std::uint32_t count)
        : host_(host), options_(options), count_(count) {}

    void number(const char* key, std::uint64_t least, std::uint64_t most, std::uint64_t& out) {
        const char* text = pegaflow::backend::option(options_, count_, key, nullptr);
        if (text == nullptr) return;
        char* end = nullptr;
        errno = 0;
        const unsigned long long value = std::strtoull(text, &end, 10);
        if (errno == 0 && end != text && *end == 0 && value >= least && value <= most) {
            out = value;
            return;
        }
        char expected[96];
        std::snprintf(expected, sizeof expected, "a number from %llu to %llu", static_cast<unsigned long long>(least),
                      static_cast<unsigned long long>(most));
        refuse(key, text, expected);
    }
    template <class Value, std::size_t kCount>
    void choice(const char* key, const std::pair<const char*, Value> (&choices)[kCount], const char* expected, Value& out) {
        const char* text = pegaflow::backend::option(options_, count_, key, nullptr);
        if (text == nullptr) return;
        for (const auto& [name, value] : choices) {
            if (std::strcmp(name, text) != 0) continue;
            out = value;
            return;
        }
        refuse(key, text, expected);
    }
    bool ok() const { return ok_; }

private:
    void refuse(const char* key, const char* text, const char* expected) {
        ok_ = false;
        pegaflow::backend::log(host_, PEGA_LOG_ERROR, "cuda", "option %s is \"%s\", expected %s", key, text, expected);
    }
    const pega_host* host_;
    const pega_option* options_;
    std::uint32_t count_;
    bool ok_ = true;
};

std::string default_directory() {
    if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != 0)
        return std::string(cache) + "/pegaflow";
    if (const char* home = std::getenv("HOME"); home != nullptr && *home != 0) return std::string(home) + "/.cache/pegaflow";
    return "";
}

}  // namespace

pega_status Settings::read(const pega_host* host, const pega_option* options, std::uint32_t count, Settings& out) {
    Reader reader(host, options, count);
    static constexpr std::pair<const char*, Path> kPathChoices[] = {
        {"auto", Path::kAuto},     {"loop", Path::kLoop},     {"batch", Path::kBatch},  {"bulk", Path::kBulk},
        {"vector", Path::kVector}, {"staged", Path::kStaged}, {"shared", Path::kShared}};
    reader.choice("path", kPathChoices, "auto, loop, batch, bulk, vector, staged or shared", out.forced);
    static constexpr std::pair<const char*, bool> kPriorities[] = {{"high", true}, {"normal", false}};
    reader.choice("stream_priority", kPriorities, "high or normal", out.high_priority);
    static constexpr std::pair<const char*, Calibrate> kCalibrations[] = {
        {"auto", Calibrate::kAuto}, {"off", Calibrate::kOff}, {"force", Calibrate::kForce}};
    reader.choice("calibrate", kCalibrations, "auto, off or force", out.calibrate);
    std::uint64_t multiprocessors = out.max_multiprocessors;
    std::uint64_t peer = out.peer_multiprocessors;
    reader.number("max_multiprocessors", 1, 64, multiprocessors);
    reader.number("peer_multiprocessors", 1, 128, peer);
    reader.number("peer_kernel_bytes", 0, 1U << 30, out.peer_kernel_bytes);
    reader.number("staging_chunk", 64U << 10, 256U << 20, out.staging_chunk);
    out.max_multiprocessors = static_cast<unsigned>(multiprocessors);
    out.peer_multiprocessors = static_cast<unsigned>(peer);
    const char* directory = pegaflow::backend::option(options, count, "calibration_dir", nullptr);
    out.calibration_dir = directory != nullptr ? directory : default_directory();
    return reader.ok() ? PEGA_OK : PEGA_INVALID;
}

}  // namespace cuda_backend

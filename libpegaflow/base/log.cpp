// SPDX-License-Identifier: Apache-2.0
#include "base/log.hpp"

#include <atomic>
#include <cstdio>
#include <memory>
#include <mutex>

namespace pegaflow::base {
namespace {

struct Sink {
    std::mutex mutex;
    LogSink sink;  // guarded by mutex
};

Sink& process_sink() {
    static Sink sink;
    return sink;
}

std::atomic<LogLevel> minimum{LogLevel::kWarning};

constexpr const char* kNames[] = {"trace", "debug", "info", "warning", "error"};

}  // namespace

void set_log_sink(LogSink sink) {
    const std::lock_guard lock(process_sink().mutex);
    process_sink().sink = std::move(sink);
}

void set_log_level(LogLevel level) noexcept { minimum.store(level, std::memory_order_relaxed); }

bool log_enabled(LogLevel level) noexcept { return level >= minimum.load(std::memory_order_relaxed); }

void write_log(LogLevel level, std::string_view module, std::string_view message) {
    LogSink sink;
    {
        const std::lock_guard lock(process_sink().mutex);
        sink = process_sink().sink;
    }
    if (sink) return sink(level, module, message);
    std::fprintf(stderr, "%s [%.*s] %.*s\n", kNames[static_cast<int>(level) - static_cast<int>(LogLevel::kTrace)],
                 static_cast<int>(module.size()), module.data(), static_cast<int>(message.size()), message.data());
}

}  // namespace pegaflow::base

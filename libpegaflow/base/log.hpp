// SPDX-License-Identifier: Apache-2.0
// log.hpp - one line for people, written by whoever first knows what happened; the process decides where lines go.
//
// The sink is process-wide because a process has one stderr; it is set once by main (or a test) and holds no other state.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <string_view>
#include <utility>

#include "pegaflow/abi/host.h"

namespace pegaflow::base {

// Trace is our own: modules begin at debug.
enum class LogLevel {
    kTrace = PEGA_LOG_DEBUG - 1,
    kDebug = PEGA_LOG_DEBUG,
    kInfo = PEGA_LOG_INFO,
    kWarning = PEGA_LOG_WARNING,
    kError = PEGA_LOG_ERROR
};

using LogSink = std::function<void(LogLevel, std::string_view module, std::string_view message)>;

// Replaces the sink; null restores the default (warnings and errors to stderr). [any]
void set_log_sink(LogSink sink);
// Lines below this level are dropped before they are formatted. [any]
void set_log_level(LogLevel level) noexcept;
bool log_enabled(LogLevel level) noexcept;
void write_log(LogLevel level, std::string_view module, std::string_view message);

// log<LogLevel::kInfo>("engine", "instance {} sealed", id). [any], not for [data] code.
template <LogLevel level, class... Args>
void log(std::string_view module, fmt::format_string<Args...> format, Args&&... args) {
    if (log_enabled(level)) write_log(level, module, fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
void log_trace(std::string_view module, fmt::format_string<Args...> format, Args&&... args) {
    log<LogLevel::kTrace>(module, format, std::forward<Args>(args)...);
}
template <class... Args>
void log_debug(std::string_view module, fmt::format_string<Args...> format, Args&&... args) {
    log<LogLevel::kDebug>(module, format, std::forward<Args>(args)...);
}
template <class... Args>
void log_info(std::string_view module, fmt::format_string<Args...> format, Args&&... args) {
    log<LogLevel::kInfo>(module, format, std::forward<Args>(args)...);
}
template <class... Args>
void log_warning(std::string_view module, fmt::format_string<Args...> format, Args&&... args) {
    log<LogLevel::kWarning>(module, format, std::forward<Args>(args)...);
}
template <class... Args>
void log_error(std::string_view module, fmt::format_string<Args...> format, Args&&... args) {
    log<LogLevel::kError>(module, format, std::forward<Args>(args)...);
}

}  // namespace pegaflow::base

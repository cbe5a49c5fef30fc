// SPDX-License-Identifier: Apache-2.0
#include "base/log.hpp"

namespace pegaflow::base {
namespace {

TEST(Log, DropsWhatIsBelowTheLevelAndPassesTheRestToTheSink) {
    std::vector<std::string> lines;
    set_log_sink([&](LogLevel level, std::string_view module, std::string_view message) {
        lines.push_back(fmt::format("{} {} {}", static_cast<int>(level), module, message));
    });
    set_log_level(LogLevel::kInfo);
    log_debug("core", "not {}", "this");
    log_info("core", "opened {}", 3);
    log_error("engine", "lost {}", "a peer");
    set_log_level(LogLevel::kDebug);
    log_trace("core", "not this");
    set_log_level(LogLevel::kError);
    log_warning("core", "nor this");
    EXPECT_FALSE(log_enabled(LogLevel::kWarning));
    set_log_level(LogLevel::kWarning);
    set_log_sink(nullptr);
    EXPECT_THAT(lines, ::testing::ElementsAre("1 core opened 3", "3 engine lost a peer"));
}

TEST(Log, GoesToStderrByDefault) {
    ::testing::internal::CaptureStderr();
    log_warning("core", "mind the {}", "gap");
    set_log_level(LogLevel::kTrace);
    log_trace("core", "a step");
    set_log_level(LogLevel::kWarning);
    EXPECT_EQ(::testing::internal::GetCapturedStderr(), "warning [core] mind the gap\ntrace [core] a step\n");
}

}  // namespace
}  // namespace pegaflow::base

// SPDX-License-Identifier: Apache-2.0
// The conformance suite on one module with options, without the libraries of the CLI, which take long to load over 9p.
//
//   check_backend MODULE [--only NAME] [OPTION=VALUE]...
#include <cstdio>
#include <cstring>

#include "tools/conformance/conformance.hpp"

int main(int argc, char** argv) {
    pegaflow::conformance::Options options;
    for (int i = 1; i < argc; ++i) {
        if (std::strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
            options.only = argv[++i];
        } else if (options.path.empty()) {
            options.path = argv[i];
        } else {
            options.options.emplace_back(argv[i]);
        }
    }
    using pegaflow::conformance::Outcome;
    int failed = 0;
    int passed = 0;
    options.on_result = [&](const pegaflow::conformance::CheckResult& result) {
        failed += result.outcome == Outcome::kFailed ? 1 : 0;
        passed += result.outcome == Outcome::kPassed ? 1 : 0;
        if (result.outcome == Outcome::kPassed) std::printf("ok %s\n", result.name.c_str());
        if (result.outcome == Outcome::kFailed) std::printf("FAILED %s: %s\n", result.name.c_str(), result.text.c_str());
        std::fflush(stdout);
    };
    pegaflow::conformance::run(options);
    std::printf("%d checks passed, %d failed\n", passed, failed);
    return failed == 0 && passed > 0 ? 0 : 1;
}

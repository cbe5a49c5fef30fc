// SPDX-License-Identifier: Apache-2.0
#include "tools/conformance/conformance.hpp"

#include "tools/conformance/fixture.hpp"
#include "tools/conformance/peer_process.hpp"

namespace pegaflow::conformance {

// checks_peer.cpp
int run_peer(const Options& options, const PeerProcess::Bytes& address, const PeerProcess::Bytes& descriptor);
extern PeerProcess* current_peer;

std::vector<CheckResult> run(const Options& options) {
    std::vector<CheckResult> results;
    PeerProcess peer([&](const auto& address, const auto& descriptor) { return run_peer(options, address, descriptor); });
    current_peer = &peer;
    try {
        const Module module(options);
        if (module.backend == nullptr) {
            const PolicySubject subject{static_cast<const pega_eviction_table*>(module.entry->get(PEGA_EVICTION_TABLE)),
                                        static_cast<const pega_admission_table*>(module.entry->get(PEGA_ADMISSION_TABLE)),
                                        &module.host, module.options};
            return run(subject, options.seed, options.only);
        }
        for (const auto& part : {batch_checks(), digest_checks(), life_checks(), peer_checks(), durable_checks()}) {
            for (const Check& check : part) {
                if (std::string(check.name).find(options.only) == std::string::npos) continue;
                CheckResult result{check.name, Outcome::kPassed, ""};
                try {
                    Fixture fixture(module, options.seed);
                    check.run(fixture);
                } catch (const Skipped& why) {
                    result = {check.name, Outcome::kSkipped, why.what()};
                } catch (const std::exception& what) {
                    result = {check.name, Outcome::kFailed, what.what()};
                }
                if (options.on_result) options.on_result(result);
                results.push_back(std::move(result));
            }
        }
    } catch (const std::exception& what) {
        results.push_back({"load", Outcome::kFailed, what.what()});
    }
    current_peer = nullptr;
    return results;
}

}  // namespace pegaflow::conformance

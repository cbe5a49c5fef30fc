// SPDX-License-Identifier: Apache-2.0
#include "tools/conformance/conformance.hpp"

#include "tools/conformance/fixture.hpp"
#include "tools/conformance/peer_process.hpp"
#include "tools/conformance/recorder.hpp"

namespace pegaflow::conformance {

// checks_peer.cpp
int run_peer(const Options& options, const PeerProcess::Bytes& address, const PeerProcess::Bytes& descriptor);
extern PeerProcess* current_peer;

std::vector<CheckResult> run(const Options& options) {
    Recorder recorder(options);
    PeerProcess peer([&](const auto& address, const auto& descriptor) { return run_peer(options, address, descriptor); });
    current_peer = &peer;
    try {
        const Module module(options);
        if (module.backend == nullptr) {
            const PolicySubject subject{static_cast<const pega_eviction_table*>(module.entry->get(PEGA_EVICTION_TABLE)),
                                        static_cast<const pega_admission_table*>(module.entry->get(PEGA_ADMISSION_TABLE)),
                                        &module.host, module.options};
            run_policies(subject, options.seed, recorder);
        } else {
            for (const auto& part : {batch_checks(), mark_checks(), digest_checks(), queue_checks(), life_checks(),
                                     peer_checks(), durable_checks()}) {
                for (const Check& check : part) {
                    recorder.check(check.name, [&] {
                        Fixture fixture(module, options.seed);
                        check.run(fixture);
                    });
                }
            }
        }
    } catch (const Unusable& what) {
        recorder.add({what.check, Outcome::kFailed, what.what()});
    }
    current_peer = nullptr;
    return recorder.take();
}

}  // namespace pegaflow::conformance

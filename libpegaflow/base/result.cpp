// SPDX-License-Identifier: Apache-2.0
#include "pegaflow/result.hpp"

namespace pegaflow {

const char* to_string(Code code) noexcept {
    switch (code) {
        case Code::kRetry:
            return "retry";
        case Code::kQueueFull:
            return "queue_full";
        case Code::kRetryOtherPath:
            return "retry_other_path";
        case Code::kPeerLost:
            return "peer_lost";
        case Code::kRegionLost:
            return "region_lost";
        case Code::kInvalid:
            return "invalid";
        case Code::kUnsupported:
            return "unsupported";
        case Code::kNoMemory:
            return "no_memory";
        case Code::kCanceled:
            return "canceled";
        case Code::kCorrupt:
            return "corrupt";
        case Code::kNotFound:
            return "not_found";
        case Code::kNotReady:
            return "not_ready";
        case Code::kExists:
            return "exists";
        case Code::kDeadlineExceeded:
            return "deadline_exceeded";
        case Code::kInternal:
            return "internal";
    }
    return "unknown";
}

}  // namespace pegaflow

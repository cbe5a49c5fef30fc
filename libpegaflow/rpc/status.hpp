// SPDX-License-Identifier: Apache-2.0
// status.hpp - our errors as gRPC statuses and back, in the words that existing clients look for.
#pragma once

#include <grpcpp/support/status.h>

#include "pegaflow/result.hpp"

namespace pegaflow::rpc {

// INVALID_ARGUMENT "invalid argument: ...", FAILED_PRECONDITION for what is missing or not in the right state,
// RESOURCE_EXHAUSTED for a full queue, DEADLINE_EXCEEDED, UNAVAILABLE while draining, else INTERNAL "storage error: ...". [any]
grpc::Status to_status(const Error& error);
// The reverse, for clients. UNAVAILABLE is kPeerLost. [any]
Error from_status(const grpc::Status& status, const char* method);

}  // namespace pegaflow::rpc

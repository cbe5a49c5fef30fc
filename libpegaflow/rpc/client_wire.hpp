// SPDX-License-Identifier: Apache-2.0
// client_wire.hpp - the client's requests as messages of the wire, and the answers back. No state, no calls.
#pragma once

#include <string_view>

#include "engine.pb.h"
#include "pegaflow/client.hpp"

namespace pegaflow::rpc {

namespace wire = ::pegaflow_wire;

// kInvalid when a layer's memory cannot be named to another process, or the wrappers are not one a layer. [any]
Result<wire::RegisterContextRequest> to_wire(const WorkerRegistration& worker, const RegisterOptions& options);
wire::SaveRequest to_wire(const SaveRequest& request);
// Over what `out` holds: a message that is used again keeps the memory of its strings. [any]
void to_wire(const QueryRequest& request, wire::QueryRequest& out);
wire::LoadRequest to_wire(const LoadRequest& request, std::string_view load_state_shm);
// kCorrupt when the lease is none. [any]
Result<QueryOutcome> from_wire(const wire::QueryResponse& response);

}  // namespace pegaflow::rpc

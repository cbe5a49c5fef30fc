// SPDX-License-Identifier: Apache-2.0
// service_wire.hpp - messages of the Engine service as the engine's own types. No state, no calls.
#pragma once

#include <string_view>
#include <vector>

#include "engine.pb.h"
#include "pegaflow/engine.hpp"

namespace pegaflow::server {

// Borrowed from the message. [any]
std::vector<std::string_view> views(const google::protobuf::RepeatedPtrField<std::string>& texts);
// kInvalid when these are not the 16 bytes of a lease. [any]
Result<LeaseId> lease_of(const std::string& bytes);
// kInvalid with what does not fit together, or why a wrapper cannot be read. [any]
Result<WorkerRegistration> registration_of(const pegaflow_wire::RegisterContextRequest& request);

}  // namespace pegaflow::server

// SPDX-License-Identifier: Apache-2.0
// event_role.hpp - the other process of the test of events between processes.
#pragma once

namespace pegaflow {

constexpr unsigned char kOverwritten = 0x5a;

// Offers the memory of a GPU and an event that a held stream reaches once it has overwritten that memory with kOverwritten;
// lets the stream go on when the parent says so. Zero, or the number of the step that failed.
int hold_a_stream();

}  // namespace pegaflow

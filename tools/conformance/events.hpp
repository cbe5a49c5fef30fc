// SPDX-License-Identifier: Apache-2.0
// events.hpp - batches that stay in flight until the check lets them go: events that the host holds back.
#pragma once

#include "tools/conformance/fixture.hpp"

namespace pegaflow::conformance {

inline const pega_ext_stream& stream_of(Fixture& f) { return f.claimed<pega_ext_stream>(PEGA_CAP_STREAM, PEGA_EXT_STREAM); }

// An event on which batches can be held back; null where there is none, or where a fresh one counts as happened.
inline pega_event* try_held_event(Fixture& f) {
    if (!f.has(PEGA_CAP_STREAM)) return nullptr;
    const pega_ext_stream& stream = stream_of(f);
    pega_event* event = nullptr;
    PEGA_EXPECT(stream.create(f.device, 0, &event) == PEGA_OK, "create an event");
    if (stream.query(event) == PEGA_PENDING) return event;
    stream.destroy(event);
    return nullptr;
}

// The same for checks that are about nothing else.
inline pega_event* held_event(Fixture& f) {
    stream_of(f);
    pega_event* event = try_held_event(f);
    if (event == nullptr) throw Skipped("events of this back end cannot be held back by the host");
    return event;
}

inline pega_stream_option stream_option(pega_event* wait, pega_event* record) {
    return {{sizeof(pega_stream_option), PEGA_OPTION_STREAM, 0, 0, nullptr}, wait, record};
}

}  // namespace pegaflow::conformance

// SPDX-License-Identifier: Apache-2.0
// device_event.hpp - an event of a device (abi/ext/stream.h) that goes with its scope.
#pragma once

#include "pegaflow/abi/ext/stream.h"
#include "pegaflow/transfer.hpp"
#include "tests/torture/cuda_soak/report.hpp"

namespace pegaflow::soak {

// An event of a device; none when there is no device.
class DeviceEvent {
public:
    DeviceEvent() = default;
    ~DeviceEvent() { reset(); }
    DeviceEvent(const DeviceEvent&) = delete;
    DeviceEvent& operator=(const DeviceEvent&) = delete;
    void make(Device& device) {
        reset();
        table_ = static_cast<const pega_ext_stream*>(device.extension(PEGA_EXT_STREAM));
        if (table_ == nullptr || table_->create(device.handle(), 0, &event_) != PEGA_OK) throw Trouble{"cannot make an event"};
    }
    void reset() {
        if (event_ != nullptr) table_->destroy(event_);
        event_ = nullptr;
    }
    void signal(void* stream) {
        if (table_->signal(event_, stream) != PEGA_OK) throw Trouble{"cannot record an event"};
    }
    bool happened() const { return table_->query(event_) == PEGA_OK; }
    pega_event* get() const noexcept { return event_; }

private:
    const pega_ext_stream* table_ = nullptr;
    pega_event* event_ = nullptr;
};

}  // namespace pegaflow::soak

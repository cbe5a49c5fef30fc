/* SPDX-License-Identifier: Apache-2.0
 * notify.h - a 32-bit value delivered to the peer after the last byte of a batch has landed.
 *
 * Values are counted per device, also when they arrive before anyone asked; none is ever lost while the device is open. How
 * many different ones it keeps that nobody consumed may have a bound (the host and cuda back ends: 2^20): a peer that sends
 * more is cut off and finds its channel lost.
 * A batch that fails or is cancelled delivers no value. */
#ifndef PEGAFLOW_ABI_EXT_NOTIFY_H
#define PEGAFLOW_ABI_EXT_NOTIFY_H

#include "pegaflow/abi/channel.h"

#define PEGA_EXT_NOTIFY "pega.ext.notify/1"
#define PEGA_OPTION_NOTIFY 2u

/* Batch option. */
typedef struct pega_notify_option {
    pega_batch_option base; /* kind = PEGA_OPTION_NOTIFY */
    uint32_t value;
    uint32_t reserved;
} pega_notify_option;

typedef struct pega_ext_notify {
    uint32_t size;
    uint32_t reserved;
    /* How many times `value` has arrived at this device and was not consumed. Arrivals are seen after `poll` ran. [any] */
    uint64_t (*count)(pega_device* device, uint32_t value);
    /* Takes `count` arrivals of `value` at once. OK, or RETRY when fewer are there (nothing taken). [any] */
    pega_status (*consume)(pega_device* device, uint32_t value, uint64_t count);
} pega_ext_notify;

#endif

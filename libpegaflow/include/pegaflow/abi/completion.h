/* SPDX-License-Identifier: Apache-2.0
 * completion.h - the one terminal outcome of each accepted batch, polled per device.
 *
 * Memory is never released and blocks are never reused before the terminal completion: no exception, also on time-outs
 * and lost peers. */
#ifndef PEGAFLOW_ABI_COMPLETION_H
#define PEGAFLOW_ABI_COMPLETION_H

#include <stddef.h>
#include <stdint.h>

#include "pegaflow/abi/region.h"
#include "pegaflow/abi/status.h"

#define PEGA_COMPLETION_TABLE "pega.completion/1"

#define PEGA_COMPLETION_TERMINAL 1u /* the batch is over; nothing with this user_data follows */
#define PEGA_COMPLETION_MARK 2u     /* progress of a batch: `landed_spans` */
#define PEGA_COMPLETION_QUIESCED 4u /* no access to the regions happens any more; set on every terminal completion */

#define PEGA_NO_BAD UINT64_MAX

typedef struct pega_completion {
    uint32_t size;
    uint32_t flags; /* PEGA_COMPLETION_* */
    uint64_t user_data;
    int32_t status;        /* pega_status; OK on marks */
    int32_t native_code;   /* of the layer below; 0 = none. error_text of the back end puts it in words */
    uint64_t bytes;        /* bytes known to have moved; all of them when status is OK */
    uint64_t landed_spans; /* leading spans that are complete; never falls within a batch */
    uint64_t first_bad;    /* first span (SPANS) or element (FLAT) that failed; PEGA_NO_BAD when none is known */
} pega_completion;

typedef struct pega_completion_table {
    uint32_t size;
    uint32_t reserved;

    /* Makes progress and returns up to `capacity` completion records in `out` (element size out[0].size, set by the
     * caller in the first element). Returns how many; 0 = nothing yet. [data], [serial] per device */
    uint32_t (*poll)(pega_device* device, pega_completion* out, uint32_t capacity);

    /* The file descriptor to sleep on (poll, epoll); owned by the device, valid until close. [any] */
    int (*wait_fd)(pega_device* device);

    /* Before sleeping: OK = wait_fd becomes readable when `poll` has work or a notification arrives; PENDING = there is
     * work now, poll instead of sleeping. [serial] per device, from the polling thread */
    pega_status (*arm)(pega_device* device);
} pega_completion_table;

#endif

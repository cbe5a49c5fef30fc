/* SPDX-License-Identifier: Apache-2.0
 * channel.h - an open path from local regions to one target, and the batches that it takes.
 *
 * A channel joins two domains (this GPU and this host, this node and that peer), never two regions: the spans of a batch
 * may name different regions of the two domains. */
#ifndef PEGAFLOW_ABI_CHANNEL_H
#define PEGAFLOW_ABI_CHANNEL_H

#include <stddef.h>
#include <stdint.h>

#include "pegaflow/abi/region.h"
#include "pegaflow/abi/status.h"

#define PEGA_CHANNEL_TABLE "pega.channel/1"

typedef struct pega_channel pega_channel;

#define PEGA_OP_READ 1u  /* remote to local */
#define PEGA_OP_WRITE 2u /* local to remote */

#define PEGA_FORMAT_SPANS 0u
#define PEGA_FORMAT_FLAT 1u

/* Pages between one local and one remote region. For every i below pega_batch.index_count and every s below `segments`,
 * `page_bytes` bytes move between
 *   local_base  + local_index[i]  * local_stride  + s * local_segment_stride    of local_region   and
 *   remote_base + remote_index[i] * remote_stride + s * remote_segment_stride   of remote_region.
 * A stride of 1 makes the index a byte offset. A span that reaches outside a region refuses the whole batch. */
typedef struct pega_span {
    pega_region* local_region;
    pega_region* remote_region;
    uint64_t local_base;            /* bytes */
    uint64_t local_stride;          /* bytes an index step */
    uint64_t local_segment_stride;  /* bytes from one segment to the next */
    uint64_t remote_base;           /* bytes */
    uint64_t remote_stride;         /* bytes an index step */
    uint64_t remote_segment_stride; /* bytes from one segment to the next */
    uint64_t page_bytes;            /* bytes moved for one index and segment; zero is allowed and moves nothing */
    uint32_t segments;              /* at least 1 */
    uint32_t reserved;
} pega_span;

/* Options of a batch: a chain of structs that begin with this header. A back end refuses a batch with an option that it
 * does not know (UNSUPPORTED), unless the option has PEGA_OPTION_HINT. */
#define PEGA_OPTION_HINT 1u
typedef struct pega_batch_option {
    uint32_t size;
    uint32_t kind;  /* PEGA_OPTION_STREAM, ... (abi/ext) */
    uint32_t flags; /* PEGA_OPTION_HINT */
    uint32_t reserved;
    const struct pega_batch_option* next;
} pega_batch_option;

typedef struct pega_batch {
    uint32_t size;
    uint32_t op;        /* PEGA_OP_* */
    uint32_t format;    /* PEGA_FORMAT_* */
    uint32_t span_size; /* sizeof(pega_span) of the caller: the distance between two spans in `spans` */
    uint64_t user_data; /* comes back in the completions; unique among the batches in flight on the device */

    /* PEGA_FORMAT_SPANS */
    const pega_span* spans;
    uint64_t span_count;
    const uint64_t* local_index;  /* shared by all spans */
    const uint64_t* remote_index; /* shared by all spans */
    uint64_t index_count;

    /* PEGA_FORMAT_FLAT: parallel arrays on one pair of regions */
    pega_region* local_region;
    pega_region* remote_region;
    const uint64_t* local_offsets;
    const uint64_t* remote_offsets;
    const uint64_t* lengths;
    uint64_t flat_count;

    /* Both */
    uint64_t deadline_ns; /* host clock; 0 = none. Work not started by then ends as CANCELED */
    uint32_t priority;    /* 0 = bulk, 1 = normal, 2 = urgent; a hint */
    uint32_t mark_every;  /* SPANS: report progress each time this many further spans have landed in order; 0 = never */
    const pega_batch_option* options;
} pega_batch;

typedef struct pega_channel_params {
    uint32_t size;
    uint32_t priority;   /* 0 = bulk, 1 = normal, 2 = urgent: what the channel's own queues get */
    const void* address; /* the peer's device address (backend.h); null = this device itself */
    uint64_t address_length;
    uint32_t queue_depth; /* batches in flight at most; 0 = the back end's choice */
    uint32_t reserved;
} pega_channel_params;

typedef struct pega_channel_table {
    uint32_t size;
    uint32_t reserved;

    /* Opens a channel. Never blocks on a peer: connecting goes on in the background and `state` tells. OK, INVALID,
     * UNSUPPORTED, CORRUPT (address), PEER_LOST, NO_MEMORY. `params` is borrowed for the call. [any] */
    pega_status (*open)(pega_device* device, const pega_channel_params* params, pega_channel** out);

    /* OK: usable; PENDING: connecting; PEER_LOST or RETRY_OTHER_PATH: broken for good. [any] */
    pega_status (*state)(pega_channel* channel);

    /* Takes a batch, all or nothing. OK: accepted, and exactly one terminal completion follows, whatever happens.
     * QUEUE_FULL: nothing started; poll, then submit again. Any other value: nothing started, no completion follows.
     * The struct and option chain are borrowed for the call; spans, indices, offsets and lengths are borrowed until the
     * terminal completion. Regions must stay registered until then. An empty batch completes with zero bytes.
     * Batches of one channel may run concurrently and complete in any order; spans of one batch land in order as far as
     * marks report them. [data], [serial] per channel */
    pega_status (*submit)(pega_channel* channel, const pega_batch* batch);

    /* Closes the channel: refuses new batches, cancels what can be cancelled, waits until `deadline_ns` (host clock) for
     * what cannot. OK: the channel is gone, all terminal completions are or will be polled from the device. PENDING: work
     * is still in hardware; the channel is closed to batches but valid, call again. [serial] */
    pega_status (*close)(pega_channel* channel, uint64_t deadline_ns);
} pega_channel_table;

#endif

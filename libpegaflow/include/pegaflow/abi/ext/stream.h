/* SPDX-License-Identifier: Apache-2.0
 * stream.h - order between a transfer and work that the device does for others.
 *
 * An event is a point in a device's work. A batch may wait for one before it first touches its regions and record one after
 * its last byte. Events may belong to another process: that is how a client's compute stream orders a server's copy without
 * a host synchronise. */
#ifndef PEGAFLOW_ABI_EXT_STREAM_H
#define PEGAFLOW_ABI_EXT_STREAM_H

#include "pegaflow/abi/channel.h"

#define PEGA_EXT_STREAM "pega.ext.stream/1"
#define PEGA_OPTION_STREAM 1u

typedef struct pega_event pega_event;

/* Batch option. Events are borrowed until the terminal completion. */
typedef struct pega_stream_option {
    pega_batch_option base; /* kind = PEGA_OPTION_STREAM */
    pega_event* wait;       /* null = none */
    pega_event* record;     /* null = none. Sure to be recorded at the terminal completion with OK, not before */
} pega_stream_option;

#define PEGA_EVENT_SHARED 1u /* other processes may import it */

typedef struct pega_ext_stream {
    uint32_t size;
    uint32_t reserved;
    /* Makes an event of this device. OK, NO_MEMORY. [any] */
    pega_status (*create)(pega_device* device, uint32_t flags, pega_event** out);
    /* Wraps a native event of this process (CUDA: a CUevent); it stays the caller's. OK, INVALID, UNSUPPORTED. [any] */
    pega_status (*wrap)(pega_device* device, void* native, pega_event** out);
    /* The bytes with which another process imports the event (CUDA: the 64 bytes of a CUipcEventHandle). As
     * export_descriptor of region.h. [any] */
    pega_status (*export_event)(pega_event* event, void* bytes, uint64_t capacity, uint64_t* length);
    /* Opens another process's event. OK, CORRUPT, REGION_LOST, UNSUPPORTED. [any] */
    pega_status (*import_event)(pega_device* device, const void* bytes, uint64_t length, pega_event** out);
    /* Sets the event from the host (host back end) or records it on the native stream `stream` (CUDA: a CUstream, null =
     * the device's default stream). [any] */
    pega_status (*signal)(pega_event* event, void* stream);
    /* OK when what the event stands for has happened, PENDING otherwise. An event of the host back end is pending until it
     * is signalled or recorded; an event of CUDA that nobody recorded yet counts as happened, which is CUDA's rule. [any] */
    pega_status (*query)(pega_event* event);
    /* Frees the event; no batch in flight may name it. [any] */
    void (*destroy)(pega_event* event);
} pega_ext_stream;

#endif

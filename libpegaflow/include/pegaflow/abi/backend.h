/* SPDX-License-Identifier: Apache-2.0
 * backend.h - a module that moves bytes between two regions.
 *
 * A back end serves devices (the host's memory, a GPU, a NIC, a set of disks). A device has one address, one completion
 * queue and one poller. A back end must offer these four tables: PEGA_BACKEND_TABLE, PEGA_REGION_TABLE,
 * PEGA_CHANNEL_TABLE, PEGA_COMPLETION_TABLE. */
#ifndef PEGAFLOW_ABI_BACKEND_H
#define PEGAFLOW_ABI_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#include "pegaflow/abi/channel.h"
#include "pegaflow/abi/completion.h"
#include "pegaflow/abi/entry.h"
#include "pegaflow/abi/host.h"
#include "pegaflow/abi/region.h"
#include "pegaflow/abi/status.h"

#define PEGA_BACKEND_TABLE "pega.backend/1"

#define PEGA_NUMA_ANY (-1)

/* One device as `probe` found it. Texts are zero-terminated. */
typedef struct pega_device_info {
    uint32_t size;
    int32_t numa_node;     /* PEGA_NUMA_ANY when unknown */
    uint32_t index;        /* what open takes: unique within the back end */
    uint32_t kind;         /* PEGA_MEMORY_*: the memory that is local to the device */
    uint64_t memory_bytes; /* of that memory; 0 when it has no meaning */
    char uuid[48];         /* stable across processes and restarts; "" when there is none */
    char text[128];        /* "NVIDIA H200, PCIe 5 x16": for people */
} pega_device_info;

/* Operations and properties of a device. */
#define PEGA_CAP_READ 1u
#define PEGA_CAP_WRITE 2u
#define PEGA_CAP_CANCEL 4u        /* PEGA_EXT_CANCEL */
#define PEGA_CAP_NOTIFY 8u        /* PEGA_EXT_NOTIFY */
#define PEGA_CAP_STREAM 16u       /* PEGA_EXT_STREAM */
#define PEGA_CAP_MARKS 32u        /* mark_every is honoured before the end; else one mark may come with the last span */
#define PEGA_CAP_PEERS 64u        /* channels to other processes or nodes */
#define PEGA_CAP_OWN_THREADS 128u /* the back end runs threads of its own */

typedef struct pega_cost {
    uint32_t latency_ns;        /* of an empty batch */
    uint32_t per_descriptor_ns; /* added by each page beyond the first */
    uint64_t bytes_per_second;
    uint64_t min_efficient_bytes; /* page size from which half the bandwidth is reached */
    uint32_t paths;               /* batches that move at full speed side by side */
    uint32_t reserved;
} pega_cost;

typedef struct pega_capabilities {
    uint32_t size;
    uint32_t flags; /* PEGA_CAP_* */
    /* matrix[local kind] has bit (1 << remote kind) when transfers between them are possible */
    uint32_t matrix[PEGA_MEMORY_KINDS];
    uint32_t source_mask;     /* bit (1 << PEGA_SOURCE_*) */
    uint32_t alignment;       /* bytes that offsets and lengths must be multiples of; 1 = any */
    uint64_t max_descriptors; /* pages in one batch; 0 = no limit */
    uint64_t max_page_bytes;  /* 0 = no limit */
    uint32_t max_batches;     /* in flight on one channel */
    uint32_t threads;         /* that the back end runs */
    pega_cost cost[2];        /* [0] READ, [1] WRITE: the back end's estimate before anything was measured */
} pega_capabilities;

#define PEGA_OPEN_CALLER_POLLS 1u /* the caller polls; the back end must not rely on anyone else doing so */

typedef struct pega_open_params {
    uint32_t size;
    uint32_t index; /* pega_device_info.index */
    uint32_t flags; /* PEGA_OPEN_* */
    uint32_t option_count;
    const pega_option* options; /* borrowed for the call */
} pega_open_params;

typedef struct pega_backend_table {
    uint32_t size;
    uint32_t reserved;

    /* Says which devices there are; no side effects, never fails hard. Writes up to `capacity` infos (element size
     * infos[0].size, set by the caller in the first element) and the number found to *count. When the back end cannot
     * work here it returns UNSUPPORTED and the reason in words in `reason`. [any] */
    pega_status (*probe)(const pega_host* host, const pega_option* options, uint32_t option_count, pega_device_info* infos,
                         uint32_t capacity, uint32_t* count, char* reason, uint64_t reason_capacity);

    /* Opens a device. OK, INVALID (index, option: the reason is logged), UNSUPPORTED, NO_MEMORY. `params` is borrowed for
     * the call, `host` until close. [any] */
    pega_status (*open)(const pega_host* host, const pega_open_params* params, pega_device** out);

    /* Closes the device: its channels are closed, its regions unregistered, and all batches have ended when it returns.
     * Completions not yet polled are lost. No other call on the device may be under way. [serial] */
    void (*close)(pega_device* device);

    /* Fills `out` up to out->size. [any] */
    pega_status (*capabilities)(pega_device* device, pega_capabilities* out);

    /* Writes the bytes with which a peer opens a channel to this device. *length gets the size needed, also when
     * `capacity` is too small (then NO_MEMORY). UNSUPPORTED without PEGA_CAP_PEERS. [any] */
    pega_status (*address)(pega_device* device, void* bytes, uint64_t capacity, uint64_t* length);

    /* Returns an extension table of this device, or null. Valid until the device is closed. [any] */
    const void* (*extension)(pega_device* device, const char* id);

    /* The native code in words. Static storage or valid until the next call of the same thread. [any] */
    const char* (*error_text)(int32_t native_code);
} pega_backend_table;

#endif

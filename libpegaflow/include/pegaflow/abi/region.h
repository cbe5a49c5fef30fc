/* SPDX-License-Identifier: Apache-2.0
 * region.h - bytes that one back end has registered for transfer.
 *
 * A region is host memory, GPU memory, a file, or a peer's region that was decoded from the descriptor which the peer
 * exported. It is registered once and used many times. Regions belong to the device that registered them. */
#ifndef PEGAFLOW_ABI_REGION_H
#define PEGAFLOW_ABI_REGION_H

#include <stddef.h>
#include <stdint.h>

#include "pegaflow/abi/status.h"

#define PEGA_REGION_TABLE "pega.region/1"

typedef struct pega_device pega_device; /* each back end defines its own */
typedef struct pega_region pega_region;

/* Where the bytes live. The matrix of capabilities is indexed by these. */
#define PEGA_MEMORY_HOST 0u   /* memory of this machine that processors address */
#define PEGA_MEMORY_GPU 1u    /* memory of an accelerator */
#define PEGA_MEMORY_FILE 2u   /* a file or block device */
#define PEGA_MEMORY_REMOTE 3u /* memory of another node */
#define PEGA_MEMORY_KINDS 4u

/* How the caller names the bytes. */
#define PEGA_SOURCE_ADDRESS 0u  /* `address` in this process */
#define PEGA_SOURCE_ALLOCATE 1u /* the back end allocates `length` bytes and frees them at unregister */
#define PEGA_SOURCE_SHM 2u      /* `handle` is the name of a POSIX shared memory object, without the leading slash */
#define PEGA_SOURCE_IPC 3u      /* `handle` is the device's inter-process handle (CUDA: the 64 bytes of a CUipcMemHandle) */
#define PEGA_SOURCE_PATH 4u     /* `handle` is the path of a file or block device */

#define PEGA_REGION_READ_ONLY 1u /* transfers never write it */
#define PEGA_REGION_SHARED 2u    /* ALLOCATE: other processes may import the exported descriptor */

typedef struct pega_memory {
    uint32_t size;
    uint32_t kind;   /* PEGA_MEMORY_* */
    uint32_t source; /* PEGA_SOURCE_* */
    uint32_t flags;  /* PEGA_REGION_* */
    void* address;   /* PEGA_SOURCE_ADDRESS only */
    uint64_t length; /* bytes that the region covers */
    uint64_t offset; /* bytes from the start of the named object to the region (SHM, IPC, PATH) */
    const void* handle;
    uint64_t handle_length; /* bytes; a name needs no terminating zero */
} pega_memory;

typedef struct pega_region_info {
    uint32_t size;
    uint32_t kind;
    uint64_t length;
    void* address; /* as processors or the device address it in this process; null when it has no address here */
} pega_region_info;

typedef struct pega_region_table {
    uint32_t size;
    uint32_t reserved;

    /* Registers memory. Returns OK and the region; INVALID (range, kind, null), UNSUPPORTED (kind or source), NO_MEMORY,
     * REGION_LOST (the named object does not exist or is shorter than asked). `memory` is borrowed for the call; memory
     * named by address must stay mapped until unregister returned. [any] */
    pega_status (*register_memory)(pega_device* device, const pega_memory* memory, pega_region** out);

    /* Forgets the region. The caller has seen the terminal completion of every batch that uses it; with work still in
     * flight the call returns INVALID and the region stays registered. [any] */
    pega_status (*unregister)(pega_region* region);

    /* Fills `out` up to out->size. [any] */
    pega_status (*info)(pega_region* region, pega_region_info* out);

    /* Writes the bytes with which a peer imports this region. *length gets the size needed, also when `capacity` is too
     * small (then NO_MEMORY, nothing written). UNSUPPORTED for regions that no other process can reach. [any] */
    pega_status (*export_descriptor)(pega_region* region, void* bytes, uint64_t capacity, uint64_t* length);

    /* Decodes a peer's descriptor into a region of this device. Every field is checked: CORRUPT when the bytes are not a
     * descriptor of this back end, UNSUPPORTED for a later version, REGION_LOST when what they name is gone. [any] */
    pega_status (*import_descriptor)(pega_device* device, const void* bytes, uint64_t length, pega_region** out);
} pega_region_table;

#endif

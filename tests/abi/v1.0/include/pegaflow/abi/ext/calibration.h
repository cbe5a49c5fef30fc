/* SPDX-License-Identifier: Apache-2.0
 * calibration.h - what a device measured about its ways to copy, and what it would choose.
 *
 * A back end with several ways to do a transfer measures them and chooses by the table. This extension shows the table to people
 * and tools; nobody else needs it. */
#ifndef PEGAFLOW_ABI_EXT_CALIBRATION_H
#define PEGAFLOW_ABI_EXT_CALIBRATION_H

#include "pegaflow/abi/backend.h"

#define PEGA_EXT_CALIBRATION "pega.ext.calibration/1"

#define PEGA_RATE_CHOSEN 1u   /* what the device takes for such batches */
#define PEGA_RATE_MEASURED 2u /* measured on this device; else a built-in estimate */

/* One cell of the table: batches of `batch_bytes` in scattered fragments of `fragment_bytes`. */
typedef struct pega_path_rate {
    uint32_t size;
    uint32_t op;    /* PEGA_OP_READ, PEGA_OP_WRITE, as seen from a channel whose local side is the device's memory */
    uint32_t flags; /* PEGA_RATE_* */
    uint32_t reserved;
    char path[16]; /* the way's name, zero-terminated */
    uint64_t fragment_bytes;
    uint64_t batch_bytes;
    uint64_t bytes_per_second; /* 0 = cannot be used here */
} pega_path_rate;

typedef struct pega_ext_calibration {
    uint32_t size;
    uint32_t reserved;
    /* Writes up to `capacity` cells (element size rates[0].size, set by the caller in the first element) and the number of all to
     * *count; `rates` may be null with a capacity of 0. OK, INVALID. [any] */
    pega_status (*rates)(pega_device* device, pega_path_rate* rates, uint32_t capacity, uint32_t* count);
} pega_ext_calibration;

#endif

/* SPDX-License-Identifier: Apache-2.0
 * durable.h - written bytes that survive a loss of power, and bytes of a file that are given back.
 *
 * An ordinary batch ends when the device has its bytes, which may still be in a volatile cache of the device or of the file
 * system. A batch with the option ends when they are on the medium. */
#ifndef PEGAFLOW_ABI_EXT_DURABLE_H
#define PEGAFLOW_ABI_EXT_DURABLE_H

#include "pegaflow/abi/channel.h"

#define PEGA_EXT_DURABLE "pega.ext.durable/1"
#define PEGA_OPTION_DURABLE 3u

/* Batch option: the terminal completion with status OK comes only when every byte that the batch wrote to files is on the
 * medium, together with the metadata without which it could not be read. A FLAT batch of no elements makes durable what earlier,
 * completed batches of this device wrote to the files of its two regions. No meaning on a batch that writes no file. */
typedef struct pega_durable_option {
    pega_batch_option base; /* kind = PEGA_OPTION_DURABLE */
} pega_durable_option;

typedef struct pega_ext_durable {
    uint32_t size;
    uint32_t reserved;
    /* Makes durable what completed batches wrote to the files of the region. Blocks until it is. OK, INVALID (no region of a
     * file), REGION_LOST (the device failed: nothing is known about what is on it). [any] */
    pega_status (*flush)(pega_region* region);
    /* Gives [offset, offset + length) of a file region back to the file system or device (punched hole, TRIM). What the range
     * reads as afterwards is zeros on a file and undefined on a block device. Only whole units are given back: a part at either
     * end keeps its bytes. No batch in flight may touch the range. Blocks. OK, INVALID, UNSUPPORTED, REGION_LOST. [any] */
    pega_status (*discard)(pega_region* region, uint64_t offset, uint64_t length);
} pega_ext_durable;

#endif

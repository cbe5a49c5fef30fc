/* SPDX-License-Identifier: Apache-2.0
 * cancel.h - ending a batch early. */
#ifndef PEGAFLOW_ABI_EXT_CANCEL_H
#define PEGAFLOW_ABI_EXT_CANCEL_H

#include "pegaflow/abi/channel.h"

#define PEGA_EXT_CANCEL "pega.ext.cancel/1"

typedef struct pega_ext_cancel {
    uint32_t size;
    uint32_t reserved;
    /* Asks for the batch to end. Exactly one terminal completion still follows: CANCELED, or its ordinary outcome when it
     * was too late. What hardware already has is waited for: the completion is never early. OK: asked; INVALID: no such
     * batch in flight. [any] */
    pega_status (*cancel)(pega_channel* channel, uint64_t user_data);
} pega_ext_cancel;

#endif

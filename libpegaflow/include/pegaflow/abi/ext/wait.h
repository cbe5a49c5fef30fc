/* SPDX-License-Identifier: Apache-2.0
 * wait.h - polling and sleeping in one call, for back ends whose kernel interface can do both at once.
 *
 * A poller that has this extension calls `wait` instead of `poll`, `arm` and a sleep on `wait_fd`: the same progress at the cost
 * of one system call. */
#ifndef PEGAFLOW_ABI_EXT_WAIT_H
#define PEGAFLOW_ABI_EXT_WAIT_H

#include "pegaflow/abi/completion.h"

#define PEGA_EXT_WAIT "pega.ext.wait/1"

typedef struct pega_ext_wait {
    uint32_t size;
    uint32_t reserved;
    /* As `poll` of the completion table, but sleeps until there is a record, `interrupt` was called, or `deadline_ns` (host
     * clock; UINT64_MAX = never) has come. Also wakes for batches that other threads submit. May return 0 early. [serial] per device, with poll */
    uint32_t (*wait)(pega_device* device, pega_completion* out, uint32_t capacity, uint64_t deadline_ns);
    /* Makes a `wait` under way, or the next one, return. [any] */
    void (*interrupt)(pega_device* device);
} pega_ext_wait;

#endif

/* SPDX-License-Identifier: Apache-2.0
 * host.h - what the process that loads a module offers to it.
 *
 * The table is passed to `probe` and `open`, and stays valid until the module is unloaded. */
#ifndef PEGAFLOW_ABI_HOST_H
#define PEGAFLOW_ABI_HOST_H

#include <stddef.h>
#include <stdint.h>

#include "pegaflow/abi/status.h"

#define PEGA_LOG_DEBUG 0
#define PEGA_LOG_INFO 1
#define PEGA_LOG_WARNING 2
#define PEGA_LOG_ERROR 3

typedef struct pega_host {
    uint32_t size;
    uint32_t reserved;
    void* context; /* handed back as the first argument of every function */
    /* Writes one line to the process's log. `message` is borrowed for the call. Not for [data] code. [any] */
    void (*log)(void* context, uint32_t level, const char* module, const char* message);
    /* Monotonic clock in nanoseconds; deadlines in this ABI are values of it. [data] */
    uint64_t (*now_ns)(void* context);
    /* Returns a host extension by identifier, or null. Valid as long as the host table. [any] */
    const void* (*extension)(void* context, const char* id);
} pega_host;

/* A host extension for modules that wrap others (fault injection, tracing). */
#define PEGA_HOST_MODULES "pega.host.modules/1"

struct pega_entry;

typedef struct pega_host_modules {
    uint32_t size;
    uint32_t reserved;
    /* Finds a loaded module by name, loading it when needed. Null when there is none. The entry stays valid until the
     * calling module is unloaded. [any] */
    const struct pega_entry* (*find)(void* context, const char* name);
} pega_host_modules;

/* A configuration value: a key below the module's own section and its text. */
typedef struct pega_option {
    const char* key;
    const char* value;
} pega_option;

#endif

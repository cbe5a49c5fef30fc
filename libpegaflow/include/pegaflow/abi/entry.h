/* SPDX-License-Identifier: Apache-2.0
 * entry.h - the one symbol that a PegaFlow module (back end or plug-in) exports.
 *
 * A module is a shared object that exports exactly one data symbol, `pegaflow_entry`. Everything else is fetched from it
 * by identifier, so that a new feature is a new identifier, never a new version of an old struct.
 *
 * Growth rules, for both sides:
 *  - every struct starts with `size`, filled in by whoever made it;
 *  - tables and structs only grow at their end, members never change place or meaning;
 *  - a member that may be missing is tested with PEGA_HAS before use;
 *  - `abi_major` differs only when the rules themselves changed; a different major is refused by name.
 *
 * Only plain data crosses the boundary: no C++ type, no exception, no ownership of allocated memory.
 *
 * Thread tags on functions:
 *  [any]     any thread, at any time, concurrently;
 *  [serial]  any thread, but never two calls on the same object at once;
 *  [data]    as [any] unless said otherwise, and the call does not allocate, lock a contended lock, log, or make a
 *            system call beyond the transfer's own. */
#ifndef PEGAFLOW_ABI_ENTRY_H
#define PEGAFLOW_ABI_ENTRY_H

#include <stddef.h>
#include <stdint.h>

#define PEGA_ABI_MAJOR 1
#define PEGA_ABI_MINOR 0

/* True when the struct that `pointer` refers to is large enough to hold `member` and the member is not null or zero. */
#define PEGA_HAS(type, pointer, member) \
    ((pointer)->size >= offsetof(type, member) + sizeof((pointer)->member) && (pointer)->member)

/* The same for plain members where zero is a value: large enough is all that is asked. */
#define PEGA_HAS_FIELD(type, pointer, member) ((pointer)->size >= offsetof(type, member) + sizeof((pointer)->member))

/* The bytes of a struct up to the end of `member`: what its maker's `size` is at least when it knew that member. A size that came
 * over the boundary is compared with this, for the last member that is needed, never with one's own sizeof: that grows with
 * the headers, and the other side may be older. */
#define PEGA_SIZE_TO(type, member) (offsetof(type, member) + sizeof(((type*)0)->member))

#if defined(__cplusplus)
#define PEGA_EXTERN_C extern "C"
#else
#define PEGA_EXTERN_C extern
#endif
#define PEGA_EXPORT __attribute__((visibility("default")))

typedef struct pega_entry {
    uint32_t size;
    uint16_t abi_major;  /* PEGA_ABI_MAJOR of the headers that the module was compiled with */
    uint16_t abi_minor;  /* PEGA_ABI_MINOR, likewise */
    const char* name;    /* "host", "cuda", ...: lower case letters, digits and '_', at most 31 */
    const char* version; /* the module's own version, for people */
    /* Returns the static table with this identifier, or null when the module does not have it. The pointer stays valid
     * until the module is unloaded. [any] */
    const void* (*get)(const char* id);
} pega_entry;

/* A module defines exactly this symbol. */
#define PEGA_ENTRY_SYMBOL "pegaflow_entry"
PEGA_EXTERN_C PEGA_EXPORT const pega_entry pegaflow_entry;

#endif

/* SPDX-License-Identifier: Apache-2.0
 * policy.h - decisions of a cache by plug-in: which block goes first, and whether a new one may push an old one out.
 *
 * A policy gives ranks; the core keeps the order and evicts the block of the lowest rank that nobody uses. Uses are noted
 * by the core in the facts of a block, so that a hit calls no policy. A module offers PEGA_EVICTION_TABLE,
 * PEGA_ADMISSION_TABLE, or both.
 *
 * The core makes several objects of one policy, each for the part of the blocks with some of the hashes. Two calls on one
 * object never overlap; calls on different objects do. */
#ifndef PEGAFLOW_ABI_POLICY_H
#define PEGAFLOW_ABI_POLICY_H

#include <stddef.h>
#include <stdint.h>

#include "pegaflow/abi/entry.h"
#include "pegaflow/abi/host.h"
#include "pegaflow/abi/status.h"

#define PEGA_EVICTION_TABLE "pega.policy.eviction/1"
#define PEGA_ADMISSION_TABLE "pega.policy.admission/1"

#define PEGA_POLICY_MAX_USES 15u /* a count of uses stops here */

/* One object of a policy; the module defines it. */
typedef struct pega_policy pega_policy;

typedef struct pega_policy_params {
    uint32_t size;
    uint32_t option_count;
    const pega_option* options; /* borrowed for the call */
    uint64_t expected_blocks;   /* about as many blocks fit the whole cache */
    uint32_t part;              /* which of `parts` objects this one is */
    uint32_t parts;
} pega_policy_params;

/* Time goes in ticks: some for each block that is looked up, more for each that comes. */
typedef struct pega_policy_time {
    uint32_t size;
    uint32_t reserved;
    uint64_t now;
    uint64_t turnover; /* ticks in which as many blocks come as the cache holds now */
} pega_policy_time;

/* What is known of a block. */
typedef struct pega_policy_block {
    uint32_t size;
    uint32_t uses;     /* 1 when it came, and one for each lookup since; at most PEGA_POLICY_MAX_USES */
    uint64_t hash;     /* the same whenever the block comes back, as long as the process runs */
    uint64_t bytes;    /* of the pool */
    uint64_t came;     /* when it became resident */
    uint64_t last_use; /* `came` at first. In one lookup the first block of the prefix counts as used last */
    uint64_t tag;      /* 0, or what `insert` set: the policy's own */
} pega_policy_block;

typedef struct pega_eviction_table {
    uint32_t size;
    uint32_t reserved;

    /* Makes an object. OK, INVALID (an option: the reason is logged), NO_MEMORY. `params` is borrowed for the call, `host`
     * until destroy. [any] */
    pega_status (*create)(const pega_host* host, const pega_policy_params* params, pega_policy** out);

    /* Frees it; blocks that it was told of may still be there. [serial] */
    void (*destroy)(pega_policy* policy);

    /* The rank of a block: lower goes first. It must not fall by a use (a larger last_use, more uses, all else equal): ranks
     * are asked for when a block comes and when one must go, not at each use. Ranks of different objects are compared with each
     * other. `block` and `time` are borrowed for the call. [serial], [data] */
    uint64_t (*rank)(pega_policy* policy, const pega_policy_block* block, const pega_policy_time* time);

    /* A block came; may set block->tag. May be null. [serial], [data] */
    void (*insert)(pega_policy* policy, pega_policy_block* block, const pega_policy_time* time);

    /* A block goes: `evicted` is 1 when memory was short, else 0. May be null. [serial], [data] */
    void (*remove)(pega_policy* policy, const pega_policy_block* block, uint32_t evicted);
} pega_eviction_table;

typedef struct pega_admission_table {
    uint32_t size;
    uint32_t reserved;

    /* As in pega_eviction_table. [any] */
    pega_status (*create)(const pega_host* host, const pega_policy_params* params, pega_policy** out);
    void (*destroy)(pega_policy* policy);

    /* 1 when the new block `candidate` may push out `victim`, the one that would go first, else 0: then the new block is
     * dropped. Asked only while memory is short. [serial], [data] */
    uint32_t (*admit)(pega_policy* policy, const pega_policy_block* candidate, const pega_policy_block* victim,
                      const pega_policy_time* time);
} pega_admission_table;

#endif

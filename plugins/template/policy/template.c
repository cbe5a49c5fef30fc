/* SPDX-License-Identifier: Apache-2.0
 * A policy to begin one's own from: eviction by last use with a second chance for blocks that were used again, and an
 * admission that protects such blocks from newcomers.
 *
 * Option "chances": how many turnovers of the cache a block that was used again may stay unused longer; 0 to 100, default 1.
 *
 * It compiles as C11 against the installed headers and nothing else. Change the name in pegaflow_entry, then rank(). */
#include <stdlib.h>
#include <string.h>

#include "pegaflow/abi/policy.h"

/* An object: here only what the options say. A policy that remembers blocks keeps its own table of hashes. */
struct pega_policy {
    uint64_t chances;
};

/* Options come as texts; what cannot be understood is refused, with a line in the log that says what was expected. */
static pega_status read_options(const pega_host* host, const pega_policy_params* params, pega_policy* policy) {
    for (uint32_t i = 0; i < params->option_count; ++i) {
        const pega_option* option = &params->options[i];
        char* end = NULL;
        const unsigned long value = strtoul(option->value, &end, 10);
        const int number = *option->value >= '0' && *option->value <= '9' && *end == '\0' && value <= 100;
        if (strcmp(option->key, "chances") != 0 || !number) {
            host->log(host->context, PEGA_LOG_ERROR, "template_policy", "the only option is chances, a number from 0 to 100");
            return PEGA_INVALID;
        }
        policy->chances = value;
    }
    return PEGA_OK;
}

static pega_status create(const pega_host* host, const pega_policy_params* params, pega_policy** out) {
    pega_policy* policy = calloc(1, sizeof *policy);
    if (policy == NULL) return PEGA_NO_MEMORY;
    policy->chances = 1;
    const pega_status status = read_options(host, params, policy);
    if (status != PEGA_OK) {
        free(policy);
        return status;
    }
    *out = policy;
    return PEGA_OK;
}

static void destroy(pega_policy* policy) { free(policy); }

/* Lower goes first. More uses and a later use only make it larger, which is the one rule that a rank must keep. */
static uint64_t rank(pega_policy* policy, const pega_policy_block* block, const pega_policy_time* time) {
    const uint64_t bonus = block->uses > 1 ? policy->chances * time->turnover : 0;
    return block->last_use > UINT64_MAX - bonus ? UINT64_MAX : block->last_use + bonus;
}

/* A newcomer does not push out a block that was used again and that is no older than its chances allow. */
static uint32_t admit(pega_policy* policy, const pega_policy_block* candidate, const pega_policy_block* victim,
                      const pega_policy_time* time) {
    (void)candidate;
    const uint64_t age = time->now > victim->last_use ? time->now - victim->last_use : 0;
    return victim->uses <= 1 || age >= policy->chances * time->turnover;
}

static const pega_eviction_table eviction_table = {sizeof eviction_table, 0, create, destroy, rank, NULL, NULL};
static const pega_admission_table admission_table = {sizeof admission_table, 0, create, destroy, admit};

static const void* get(const char* id) {
    if (strcmp(id, PEGA_EVICTION_TABLE) == 0) return &eviction_table;
    if (strcmp(id, PEGA_ADMISSION_TABLE) == 0) return &admission_table;
    return NULL;
}

const pega_entry pegaflow_entry = {sizeof pegaflow_entry, PEGA_ABI_MAJOR, PEGA_ABI_MINOR, "template_policy", "1.0", get};

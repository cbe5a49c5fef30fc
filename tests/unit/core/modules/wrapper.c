/* SPDX-License-Identifier: Apache-2.0
 * wrapper.c - the smallest interposer: passes every call on to the back end that option `inner` names. */
#include <string.h>

#include "pegaflow/abi/backend.h"

static const pega_backend_table* backend;
static const pega_region_table* region;
static const pega_channel_table* channel;
static const pega_completion_table* completion;

static pega_status find_inner(const pega_host* host, const pega_option* options, uint32_t option_count) {
    const pega_host_modules* modules = host->extension(host->context, PEGA_HOST_MODULES);
    for (uint32_t i = 0; modules != NULL && i < option_count; ++i) {
        if (strcmp(options[i].key, "inner") != 0) continue;
        const pega_entry* inner = modules->find(host->context, options[i].value);
        if (inner == NULL) return PEGA_UNSUPPORTED;
        backend = inner->get(PEGA_BACKEND_TABLE);
        region = inner->get(PEGA_REGION_TABLE);
        channel = inner->get(PEGA_CHANNEL_TABLE);
        completion = inner->get(PEGA_COMPLETION_TABLE);
        return PEGA_OK;
    }
    return PEGA_INVALID;
}

static pega_status probe(const pega_host* host, const pega_option* options, uint32_t option_count, pega_device_info* infos,
                         uint32_t capacity, uint32_t* count, char* reason, uint64_t reason_capacity) {
    const pega_status status = find_inner(host, options, option_count);
    if (status != PEGA_OK) {
        strncpy(reason, "no inner back end", reason_capacity - 1);
        return status;
    }
    return backend->probe(host, options, option_count, infos, capacity, count, reason, reason_capacity);
}

static pega_status open_device(const pega_host* host, const pega_open_params* params, pega_device** out) {
    /* What is meant for the inner back end arrives as inner.KEY. */
    pega_option options[16];
    pega_open_params inner = *params;
    inner.options = options;
    inner.option_count = 0;
    for (uint32_t i = 0; i < params->option_count && inner.option_count < 16; ++i) {
        if (strncmp(params->options[i].key, "inner.", 6) != 0) continue;
        options[inner.option_count].key = params->options[i].key + 6;
        options[inner.option_count++].value = params->options[i].value;
    }
    return backend->open(host, &inner, out);
}

static void close_device(pega_device* d) { backend->close(d); }
static pega_status capabilities(pega_device* d, pega_capabilities* out) {
    const pega_status status = backend->capabilities(d, out);
    if (status == PEGA_OK) out->max_page_bytes = 4242; /* how a test sees that it came this way */
    return status;
}
static pega_status address(pega_device* d, void* b, uint64_t c, uint64_t* l) { return backend->address(d, b, c, l); }
static const void* extension(pega_device* d, const char* id) { return backend->extension(d, id); }
static const char* error_text(int32_t code) { return backend->error_text(code); }
static pega_status register_memory(pega_device* d, const pega_memory* m, pega_region** out) {
    return region->register_memory(d, m, out);
}
static pega_status unregister(pega_region* r) { return region->unregister(r); }
static pega_status info(pega_region* r, pega_region_info* out) { return region->info(r, out); }
static pega_status export_descriptor(pega_region* r, void* b, uint64_t c, uint64_t* l) {
    return region->export_descriptor(r, b, c, l);
}
static pega_status import_descriptor(pega_device* d, const void* b, uint64_t l, pega_region** out) {
    return region->import_descriptor(d, b, l, out);
}
static pega_status open_channel(pega_device* d, const pega_channel_params* p, pega_channel** out) {
    return channel->open(d, p, out);
}
static pega_status state(pega_channel* c) { return channel->state(c); }
static pega_status submit(pega_channel* c, const pega_batch* b) { return channel->submit(c, b); }
static pega_status close_channel(pega_channel* c, uint64_t deadline) { return channel->close(c, deadline); }
static uint32_t poll_device(pega_device* d, pega_completion* out, uint32_t n) { return completion->poll(d, out, n); }
static int wait_fd(pega_device* d) { return completion->wait_fd(d); }
static pega_status arm(pega_device* d) { return completion->arm(d); }

static const pega_backend_table kBackend = {sizeof kBackend, 0,       probe,     open_device, close_device,
                                            capabilities,    address, extension, error_text};
static const pega_region_table kRegion = {sizeof kRegion,   0, register_memory, unregister, info, export_descriptor,
                                          import_descriptor};
static const pega_channel_table kChannel = {sizeof kChannel, 0, open_channel, state, submit, close_channel};
static const pega_completion_table kCompletion = {sizeof kCompletion, 0, poll_device, wait_fd, arm};

static const void* get(const char* id) {
    if (strcmp(id, PEGA_BACKEND_TABLE) == 0) return &kBackend;
    if (strcmp(id, PEGA_REGION_TABLE) == 0) return &kRegion;
    if (strcmp(id, PEGA_CHANNEL_TABLE) == 0) return &kChannel;
    if (strcmp(id, PEGA_COMPLETION_TABLE) == 0) return &kCompletion;
    return NULL;
}

PEGA_EXPORT const pega_entry pegaflow_entry = {sizeof pegaflow_entry, PEGA_ABI_MAJOR, PEGA_ABI_MINOR, "wrapper", "0.1", get};

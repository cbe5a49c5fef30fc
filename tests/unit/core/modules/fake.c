/* SPDX-License-Identifier: Apache-2.0
 * fake.c - a complete back end in C11 that copies within poll, plus broken variants of it, chosen by macros:
 * FAKE_NAME, FAKE_MAJOR, FAKE_ENTRY_SIZE, FAKE_NO_VERSION, FAKE_SHORT_CHANNEL, FAKE_NO_SUBMIT, FAKE_NO_COMPLETION,
 * FAKE_EXPORTS_OTHER. It is also compiled against older and newer headers than the core's.
 *
 * Options of open: polls = calls of poll before a batch is done; twice = report each end twice; depth = queue depth;
 * write = abort, hang or exit: what becomes of the process when it submits a WRITE. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "pegaflow/abi/backend.h"
#include "pegaflow/abi/ext/notify.h"

#ifndef FAKE_NAME
#define FAKE_NAME "fake"
#endif
#ifndef FAKE_MAJOR
#define FAKE_MAJOR PEGA_ABI_MAJOR
#endif
#ifndef FAKE_ENTRY_SIZE
#define FAKE_ENTRY_SIZE sizeof(pega_entry)
#endif
#ifdef FAKE_NO_VERSION
#define FAKE_VERSION NULL
#else
#define FAKE_VERSION "0.1"
#endif
#ifndef FAKE_EXPORTS_OTHER

enum { kMaxBatches = 64, kValues = 16 };

struct pega_region {
    pega_device* device;
    unsigned char* address;
    uint64_t length;
    int owned;
    int users;
};

typedef struct job {
    pega_batch batch;
    pega_channel* channel;
    uint32_t value;
    int has_value;
    long polls_left;
} job;

struct pega_device {
    pthread_mutex_t mutex;
    job jobs[kMaxBatches];
    uint32_t count;
    uint64_t values[kValues];
    long polls;
    long twice;
    char write[8];
    uint32_t depth;
    int fd;
};

struct pega_channel {
    pega_device* device;
    uint32_t in_flight;
    int closed;
};

static uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

static void copy_out(void* out, uint32_t* out_size, const void* value, uint32_t size) {
    const uint32_t n = smaller(*out_size, size);
    memcpy(out, value, n);
    *out_size = n;
}

static pega_status probe(const pega_host* host, const pega_option* options, uint32_t option_count, pega_device_info* infos,
                         uint32_t capacity, uint32_t* count, char* reason, uint64_t reason_capacity) {
    for (uint32_t i = 0; i < option_count; ++i) {
        if (strcmp(options[i].key, "refuse") == 0) {
            strncpy(reason, options[i].value, reason_capacity - 1);
            return PEGA_UNSUPPORTED;
        }
    }
    host->log(host->context, PEGA_LOG_DEBUG, FAKE_NAME, "probed");
    *count = 2;
    const uint32_t step = capacity > 0 ? infos[0].size : 0;
    for (uint32_t i = 0; i < *count && i < capacity; ++i) {
        pega_device_info info;
        memset(&info, 0, sizeof info);
        info.size = smaller(step, sizeof info);
        info.numa_node = PEGA_NUMA_ANY;
        info.index = i;
        strcpy(info.uuid, i == 0 ? "GPU-fake-zero" : "fake-one");
        strcpy(info.text, "a fake");
        memcpy((char*)infos + (size_t)i * step, &info, info.size);
    }
    return PEGA_OK;
}

static pega_status open_device(const pega_host* host, const pega_open_params* params, pega_device** out) {
    (void)host;
    pega_device* d = calloc(1, sizeof *d);
    if (d == NULL) return PEGA_NO_MEMORY;
    d->depth = kMaxBatches;
    for (uint32_t i = 0; i < params->option_count; ++i) {
        const long value = strtol(params->options[i].value, NULL, 10);
        if (strcmp(params->options[i].key, "polls") == 0) d->polls = value;
        if (strcmp(params->options[i].key, "twice") == 0) d->twice = value;
        if (strcmp(params->options[i].key, "depth") == 0) d->depth = (uint32_t)value;
        if (strcmp(params->options[i].key, "write") == 0) strncpy(d->write, params->options[i].value, sizeof d->write - 1);
    }
    d->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&d->mutex, NULL);
    *out = d;
    return PEGA_OK;
}

static void close_device(pega_device* d) {
    close(d->fd);
    pthread_mutex_destroy(&d->mutex);
    free(d);
}

static pega_status capabilities(pega_device* d, pega_capabilities* out) {
    pega_capabilities c;
    memset(&c, 0, sizeof c);
    c.flags = PEGA_CAP_READ | PEGA_CAP_WRITE | PEGA_CAP_NOTIFY;
    c.matrix[PEGA_MEMORY_HOST] = 1u << PEGA_MEMORY_HOST;
    c.source_mask = (1u << PEGA_SOURCE_ADDRESS) | (1u << PEGA_SOURCE_ALLOCATE);
    c.alignment = 1;
    c.max_batches = d->depth;
    const uint32_t size = smaller(out->size, sizeof c);
    c.size = size;
    memcpy(out, &c, size);
    return PEGA_OK;
}

static pega_status address(pega_device* d, void* bytes, uint64_t capacity, uint64_t* length) {
    (void)d;
    enum { kLength = 300 }; /* longer than most callers expect */
    *length = kLength;
    if (capacity < kLength) return PEGA_NO_MEMORY;
    memset(bytes, 7, kLength);
    return PEGA_OK;
}

static uint64_t notify_count(pega_device* d, uint32_t value) {
    pthread_mutex_lock(&d->mutex);
    const uint64_t n = d->values[value % kValues];
    pthread_mutex_unlock(&d->mutex);
    return n;
}

static pega_status notify_consume(pega_device* d, uint32_t value, uint64_t count) {
    pthread_mutex_lock(&d->mutex);
    const int there = d->values[value % kValues] >= count;
    if (there) d->values[value % kValues] -= count;
    pthread_mutex_unlock(&d->mutex);
    return there ? PEGA_OK : PEGA_RETRY;
}

static const pega_ext_notify kNotify = {.size = sizeof(pega_ext_notify), .count = notify_count, .consume = notify_consume};

static const void* extension(pega_device* d, const char* id) {
    (void)d;
    return strcmp(id, PEGA_EXT_NOTIFY) == 0 ? &kNotify : NULL;
}

static const char* error_text(int32_t code) { return code == 5 ? "the fake gave up" : NULL; }

static pega_status register_memory(pega_device* d, const pega_memory* memory, pega_region** out) {
    if (memory->kind != PEGA_MEMORY_HOST || memory->source > PEGA_SOURCE_ALLOCATE) return PEGA_UNSUPPORTED;
    pega_region* r = calloc(1, sizeof *r);
    if (r == NULL) return PEGA_NO_MEMORY;
    r->device = d;
    r->length = memory->length;
    r->owned = memory->source == PEGA_SOURCE_ALLOCATE;
    r->address = r->owned ? calloc(1, memory->length + 1) : memory->address;
    *out = r;
    return PEGA_OK;
}

static pega_status unregister(pega_region* r) {
    pthread_mutex_lock(&r->device->mutex);
    const int users = r->users;
    pthread_mutex_unlock(&r->device->mutex);
    if (users != 0) return PEGA_INVALID;
    if (r->owned) free(r->address);
    free(r);
    return PEGA_OK;
}

static pega_status region_info(pega_region* r, pega_region_info* out) {
    const pega_region_info info = {
        .size = smaller(out->size, sizeof info), .kind = PEGA_MEMORY_HOST, .length = r->length, .address = r->address};
    copy_out(out, &out->size, &info, sizeof info);
    return PEGA_OK;
}

static pega_status export_descriptor(pega_region* r, void* bytes, uint64_t capacity, uint64_t* length) {
    (void)r, (void)bytes, (void)capacity, (void)length;
    return PEGA_UNSUPPORTED;
}

static pega_status import_descriptor(pega_device* d, const void* bytes, uint64_t length, pega_region** out) {
    (void)d, (void)bytes, (void)length, (void)out;
    return PEGA_CORRUPT;
}

static pega_status open_channel(pega_device* d, const pega_channel_params* params, pega_channel** out) {
    (void)params;
    pega_channel* c = calloc(1, sizeof *c);
    if (c == NULL) return PEGA_NO_MEMORY;
    c->device = d;
    *out = c;
    return PEGA_OK;
}

static pega_status channel_state(pega_channel* c) {
    (void)c;
    return PEGA_OK;
}

static const pega_span* span_at(const pega_batch* b, uint64_t i) {
    return (const pega_span*)((const char*)b->spans + i * b->span_size);
}

/* Adds `step` to the users of every region of the batch. */
static void use_regions(const pega_batch* b, int step) {
    if (b->format == PEGA_FORMAT_FLAT) {
        b->local_region->users += step;
        b->remote_region->users += step;
    }
    for (uint64_t i = 0; b->format == PEGA_FORMAT_SPANS && i < b->span_count; ++i) {
        span_at(b, i)->local_region->users += step;
        span_at(b, i)->remote_region->users += step;
    }
}

/* As modules do that were never tried. */
static void spoil(const char* how) {
    if (strcmp(how, "abort") == 0) abort();
    if (strcmp(how, "exit") == 0) _exit(0);
    while (strcmp(how, "hang") == 0) pause();
}

static pega_status submit(pega_channel* c, const pega_batch* batch) {
    pega_device* d = c->device;
    if (batch->op == PEGA_OP_WRITE) spoil(d->write);
    job j;
    memset(&j, 0, sizeof j);
    j.batch.size = sizeof j.batch;
    memcpy(&j.batch, batch, smaller(batch->size, sizeof j.batch));
    for (const pega_batch_option* o = batch->options; o != NULL; o = o->next) {
        if (o->kind == PEGA_OPTION_NOTIFY) {
            j.value = ((const pega_notify_option*)(const void*)o)->value;
            j.has_value = 1;
        } else if ((o->flags & PEGA_OPTION_HINT) == 0) {
            return PEGA_UNSUPPORTED;
        }
    }
    j.channel = c;
    pthread_mutex_lock(&d->mutex);
    j.polls_left = d->polls;
    pega_status status = PEGA_OK;
    if (c->closed) {
        status = PEGA_CANCELED;
    } else if (d->count == kMaxBatches || c->in_flight == d->depth) {
        status = PEGA_QUEUE_FULL;
    } else {
        use_regions(batch, 1);
        d->jobs[d->count++] = j;
        ++c->in_flight;
    }
    pthread_mutex_unlock(&d->mutex);
    return status;
}

static pega_status close_channel(pega_channel* c, uint64_t deadline_ns) {
    (void)deadline_ns;
    pega_device* d = c->device;
    pthread_mutex_lock(&d->mutex);
    c->closed = 1;
    const uint32_t left = c->in_flight;
    pthread_mutex_unlock(&d->mutex);
    if (left != 0) {
        usleep(1000);
        return PEGA_PENDING;
    }
    free(c);
    return PEGA_OK;
}

static void move_bytes(const pega_batch* b, unsigned char* local, unsigned char* remote, uint64_t length) {
    if (b->op == PEGA_OP_READ) {
        memcpy(local, remote, length);
    } else {
        memcpy(remote, local, length);
    }
}

static uint64_t run(const pega_batch* b) {
    uint64_t bytes = 0;
    for (uint64_t i = 0; b->format == PEGA_FORMAT_FLAT && i < b->flat_count; ++i) {
        move_bytes(b, b->local_region->address + b->local_offsets[i], b->remote_region->address + b->remote_offsets[i],
                   b->lengths[i]);
        bytes += b->lengths[i];
    }
    for (uint64_t s = 0; b->format == PEGA_FORMAT_SPANS && s < b->span_count; ++s) {
        const pega_span* p = span_at(b, s);
        for (uint64_t i = 0; i < b->index_count; ++i) {
            for (uint64_t k = 0; k < p->segments; ++k) {
                move_bytes(b,
                           p->local_region->address + p->local_base + b->local_index[i] * p->local_stride +
                               k * p->local_segment_stride,
                           p->remote_region->address + p->remote_base + b->remote_index[i] * p->remote_stride +
                               k * p->remote_segment_stride,
                           p->page_bytes);
                bytes += p->page_bytes;
            }
        }
    }
    return bytes;
}

static uint32_t put(pega_completion* out, uint32_t step, uint32_t n, const job* j, uint64_t bytes) {
    pega_completion record;
    memset(&record, 0, sizeof record);
    record.size = smaller(step, sizeof record);
    record.flags = PEGA_COMPLETION_TERMINAL | PEGA_COMPLETION_QUIESCED;
    record.user_data = j->batch.user_data;
    record.bytes = bytes;
    record.landed_spans = j->batch.format == PEGA_FORMAT_SPANS ? j->batch.span_count : 0;
    record.first_bad = PEGA_NO_BAD;
    if (j->batch.priority == 99) {
        record.status = PEGA_RETRY_OTHER_PATH;
        record.native_code = 5;
    }
    memcpy((char*)out + (size_t)n * step, &record, record.size);
    return n + 1;
}

static uint32_t poll_device(pega_device* d, pega_completion* out, uint32_t capacity) {
    const uint32_t step = out[0].size;
    uint32_t n = 0;
    pthread_mutex_lock(&d->mutex);
    for (uint32_t i = 0; i < d->count && n + 2 <= capacity;) {
        job* j = &d->jobs[i];
        /* Priority 98 holds a flat batch back until the test sets the first local byte. */
        const int held = j->batch.priority == 98 && __atomic_load_n(j->batch.local_region->address, __ATOMIC_ACQUIRE) == 0;
        if (held || j->polls_left-- > 0) {
            ++i;
            continue;
        }
        const uint64_t bytes = run(&j->batch);
        use_regions(&j->batch, -1);
        if (j->has_value) ++d->values[j->value % kValues];
        n = put(out, step, n, j, bytes);
        if (d->twice) n = put(out, step, n, j, bytes);
        --j->channel->in_flight;
        d->jobs[i] = d->jobs[--d->count];
    }
    pthread_mutex_unlock(&d->mutex);
    return n;
}

static int wait_fd(pega_device* d) { return d->fd; }

static pega_status arm(pega_device* d) {
    pthread_mutex_lock(&d->mutex);
    const uint32_t count = d->count;
    pthread_mutex_unlock(&d->mutex);
    return count == 0 ? PEGA_OK : PEGA_PENDING;
}

static const pega_backend_table kBackend = {.size = sizeof kBackend,
                                            .probe = probe,
                                            .open = open_device,
                                            .close = close_device,
                                            .capabilities = capabilities,
                                            .address = address,
                                            .extension = extension,
                                            .error_text = error_text};
static const pega_region_table kRegion = {.size = sizeof kRegion,
                                          .register_memory = register_memory,
                                          .unregister = unregister,
                                          .info = region_info,
                                          .export_descriptor = export_descriptor,
                                          .import_descriptor = import_descriptor};
static const pega_channel_table kChannel = {
#ifdef FAKE_SHORT_CHANNEL
    .size = offsetof(pega_channel_table, close),
#else
    .size = sizeof kChannel,
#endif
    .open = open_channel,
    .state = channel_state,
#ifndef FAKE_NO_SUBMIT
    .submit = submit,
#endif
    .close = close_channel};
static const pega_completion_table kCompletion = {
    .size = sizeof kCompletion, .poll = poll_device, .wait_fd = wait_fd, .arm = arm};

static const void* get(const char* id) {
#ifdef FAKE_NO_SUBMIT
    (void)submit;
#endif
    if (strcmp(id, PEGA_BACKEND_TABLE) == 0) return &kBackend;
    if (strcmp(id, PEGA_REGION_TABLE) == 0) return &kRegion;
    if (strcmp(id, PEGA_CHANNEL_TABLE) == 0) return &kChannel;
#ifdef FAKE_NO_COMPLETION
    (void)kCompletion;
#else
    if (strcmp(id, PEGA_COMPLETION_TABLE) == 0) return &kCompletion;
#endif
    return NULL;
}

PEGA_EXPORT const pega_entry pegaflow_entry = {.size = FAKE_ENTRY_SIZE,
                                               .abi_major = FAKE_MAJOR,
                                               .abi_minor = PEGA_ABI_MINOR,
                                               .name = FAKE_NAME,
                                               .version = FAKE_VERSION,
                                               .get = get};

#else
PEGA_EXPORT const int fake_other_symbol = 1;
#endif

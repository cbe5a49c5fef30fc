// SPDX-License-Identifier: Apache-2.0
// liar.cpp - the template back end, except for one rule, which it breaks: the suite must find that out. Option `lie`:
//
//   marks       marks come before the bytes
//   full        a batch that was refused is begun all the same
//   busy        the queue has no end
//   unregister  regions go under a batch
//   late        the first byte is written once more after the end
//   claims      cancel is claimed, without its table
//   zero        elements of no bytes move one byte
//
// `eager` is no lie: every batch is over when it was submitted.
#define pegaflow_entry template_entry
#include "plugins/template/backend/template.cpp"
#undef pegaflow_entry

#include <set>
#include <string>

namespace {

std::string lie;
std::set<pega_region*> kept;                       // said to be unregistered
std::deque<std::vector<std::uint64_t>> lengths;    // borrowed by batches
std::atomic<std::uint8_t*> written_last{nullptr};  // where the last batch of one element writes

pega_status lying_open(const pega_host* host, const pega_open_params* params, pega_device** out) {
    lie = pegaflow::backend::option(params->options, params->option_count, "lie", "");
    return open_device(host, params, out);
}

pega_status lying_capabilities(pega_device* device, pega_capabilities* out) {
    const pega_status status = capabilities(device, out);
    if (lie == "marks") out->flags |= PEGA_CAP_MARKS;
    if (lie == "claims") out->flags |= PEGA_CAP_CANCEL;
    return status;
}

pega_status lying_unregister(pega_region* region) {
    written_last = nullptr;
    if (lie != "unregister" || region->in_flight.load() == 0) return unregister(region);
    kept.insert(region);
    return PEGA_OK;
}

void lie_about_marks(pega_device& device, const pega_batch& batch) {
    const std::uint64_t every = batch.format == PEGA_FORMAT_SPANS ? batch.mark_every : 0;
    const std::lock_guard lock(device.mutex);
    for (std::uint64_t landed = every; every != 0 && landed <= batch.span_count; landed += every) {
        pega_completion record{};
        record.size = sizeof record;
        record.flags = PEGA_COMPLETION_MARK;
        record.user_data = batch.user_data;
        record.landed_spans = landed;
        device.completed.push_back(record);
    }
}

void end_now(pega_device& device) {
    const std::lock_guard lock(device.mutex);
    for (const Batch& work : device.queue) run(device, work, false);
    device.queue.clear();
}

pega_status lying_submit(pega_channel* channel, const pega_batch* batch) {
    if (batch == nullptr) return submit(channel, batch);
    pega_batch changed = *batch;
    const bool flat = batch->format == PEGA_FORMAT_FLAT && batch->lengths != nullptr;
    if (lie == "zero" && flat) {
        std::vector<std::uint64_t>& longer = lengths.emplace_back(batch->lengths, batch->lengths + batch->flat_count);
        for (std::uint64_t& length : longer) length = std::max<std::uint64_t>(length, 1);
        changed.lengths = longer.data();
    }
    if (lie == "busy") channel->depth = 1000;
    const pega_status status = submit(channel, &changed);
    const bool reads = batch->op == PEGA_OP_READ;
    if (lie == "full" && status == PEGA_QUEUE_FULL)
        batch->remote_region->base[*batch->remote_offsets] = batch->local_region->base[*batch->local_offsets];
    if (status == PEGA_OK && lie == "marks") lie_about_marks(*channel->device, *batch);
    if (status == PEGA_OK && lie == "eager") end_now(*channel->device);
    if (status == PEGA_OK && lie == "late" && flat && batch->flat_count == 1)
        written_last =
            reads ? batch->local_region->base + *batch->local_offsets : batch->remote_region->base + *batch->remote_offsets;
    return status;
}

std::uint32_t lying_poll(pega_device* device, pega_completion* out, std::uint32_t capacity) {
    const std::uint32_t count = poll(device, out, capacity);
    if (count == 0 && written_last != nullptr) *written_last.load() = 0x11;
    return count;
}

constexpr pega_backend_table kLyingBackend = {sizeof(pega_backend_table), 0,        &probe,     &lying_open, &close_device,
                                              &lying_capabilities,        &address, &extension, &error_text};
constexpr pega_region_table kLyingRegion = {
    sizeof(pega_region_table), 0, &register_memory, &lying_unregister, &info, &export_descriptor, &import_descriptor};
constexpr pega_channel_table kLyingChannel = {
    sizeof(pega_channel_table), 0, &open_channel, &state, &lying_submit, &close_channel};
constexpr pega_completion_table kLyingCompletion = {sizeof(pega_completion_table), 0, &lying_poll, &wait_fd, &arm};

const void* lying_get(const char* id) {
    if (std::strcmp(id, PEGA_BACKEND_TABLE) == 0) return &kLyingBackend;
    if (std::strcmp(id, PEGA_REGION_TABLE) == 0) return &kLyingRegion;
    if (std::strcmp(id, PEGA_CHANNEL_TABLE) == 0) return &kLyingChannel;
    if (std::strcmp(id, PEGA_COMPLETION_TABLE) == 0) return &kLyingCompletion;
    return nullptr;
}

}  // namespace

PEGA_EXTERN_C PEGA_EXPORT const pega_entry pegaflow_entry;
const pega_entry pegaflow_entry = {sizeof(pega_entry), PEGA_ABI_MAJOR, PEGA_ABI_MINOR, "liar", "1.0", &lying_get};

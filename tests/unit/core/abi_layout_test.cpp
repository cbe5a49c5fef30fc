// SPDX-License-Identifier: Apache-2.0
// The places of all members of the ABI, as numbers: whoever changes one breaks every module that was ever built.
// New members are added at the end, with a line here; no line ever changes.
#include "pegaflow/abi/backend.h"
#include "pegaflow/abi/channel.h"
#include "pegaflow/abi/completion.h"
#include "pegaflow/abi/entry.h"
#include "pegaflow/abi/ext/cancel.h"
#include "pegaflow/abi/ext/notify.h"
#include "pegaflow/abi/ext/stream.h"
#include "pegaflow/abi/host.h"
#include "pegaflow/abi/policy.h"
#include "pegaflow/abi/region.h"
#include "pegaflow/abi/status.h"
#include "tests/unit/core/abi_pin.hpp"

namespace {

TEST(AbiLayout, Entry) {
    PIN_SIZE(pega_entry, 32);
    PIN(pega_entry, size, 0, 4);
    PIN(pega_entry, abi_major, 4, 2);
    PIN(pega_entry, abi_minor, 6, 2);
    PIN(pega_entry, name, 8, 8);
    PIN(pega_entry, version, 16, 8);
    PIN(pega_entry, get, 24, 8);
}

TEST(AbiLayout, Host) {
    PIN_SIZE(pega_host, 40);
    PIN(pega_host, size, 0, 4);
    PIN(pega_host, reserved, 4, 4);
    PIN(pega_host, context, 8, 8);
    PIN(pega_host, log, 16, 8);
    PIN(pega_host, now_ns, 24, 8);
    PIN(pega_host, extension, 32, 8);
}

TEST(AbiLayout, HostModules) {
    PIN_SIZE(pega_host_modules, 16);
    PIN(pega_host_modules, size, 0, 4);
    PIN(pega_host_modules, reserved, 4, 4);
    PIN(pega_host_modules, find, 8, 8);
}

TEST(AbiLayout, Option) {
    PIN_SIZE(pega_option, 16);
    PIN(pega_option, key, 0, 8);
    PIN(pega_option, value, 8, 8);
}

TEST(AbiLayout, PolicyParams) {
    PIN_SIZE(pega_policy_params, 32);
    PIN(pega_policy_params, size, 0, 4);
    PIN(pega_policy_params, option_count, 4, 4);
    PIN(pega_policy_params, options, 8, 8);
    PIN(pega_policy_params, expected_blocks, 16, 8);
    PIN(pega_policy_params, part, 24, 4);
    PIN(pega_policy_params, parts, 28, 4);
}

TEST(AbiLayout, PolicyTime) {
    PIN_SIZE(pega_policy_time, 24);
    PIN(pega_policy_time, size, 0, 4);
    PIN(pega_policy_time, reserved, 4, 4);
    PIN(pega_policy_time, now, 8, 8);
    PIN(pega_policy_time, turnover, 16, 8);
}

TEST(AbiLayout, PolicyBlock) {
    PIN_SIZE(pega_policy_block, 48);
    PIN(pega_policy_block, size, 0, 4);
    PIN(pega_policy_block, uses, 4, 4);
    PIN(pega_policy_block, hash, 8, 8);
    PIN(pega_policy_block, bytes, 16, 8);
    PIN(pega_policy_block, came, 24, 8);
    PIN(pega_policy_block, last_use, 32, 8);
    PIN(pega_policy_block, tag, 40, 8);
}

TEST(AbiLayout, EvictionTable) {
    PIN_SIZE(pega_eviction_table, 48);
    PIN(pega_eviction_table, size, 0, 4);
    PIN(pega_eviction_table, reserved, 4, 4);
    PIN(pega_eviction_table, create, 8, 8);
    PIN(pega_eviction_table, destroy, 16, 8);
    PIN(pega_eviction_table, rank, 24, 8);
    PIN(pega_eviction_table, insert, 32, 8);
    PIN(pega_eviction_table, remove, 40, 8);
}

TEST(AbiLayout, AdmissionTable) {
    PIN_SIZE(pega_admission_table, 32);
    PIN(pega_admission_table, size, 0, 4);
    PIN(pega_admission_table, reserved, 4, 4);
    PIN(pega_admission_table, create, 8, 8);
    PIN(pega_admission_table, destroy, 16, 8);
    PIN(pega_admission_table, admit, 24, 8);
}

TEST(AbiLayout, Memory) {
    PIN_SIZE(pega_memory, 56);
    PIN(pega_memory, size, 0, 4);
    PIN(pega_memory, kind, 4, 4);
    PIN(pega_memory, source, 8, 4);
    PIN(pega_memory, flags, 12, 4);
    PIN(pega_memory, address, 16, 8);
    PIN(pega_memory, length, 24, 8);
    PIN(pega_memory, offset, 32, 8);
    PIN(pega_memory, handle, 40, 8);
    PIN(pega_memory, handle_length, 48, 8);
}

TEST(AbiLayout, RegionInfo) {
    PIN_SIZE(pega_region_info, 24);
    PIN(pega_region_info, size, 0, 4);
    PIN(pega_region_info, kind, 4, 4);
    PIN(pega_region_info, length, 8, 8);
    PIN(pega_region_info, address, 16, 8);
}

TEST(AbiLayout, RegionTable) {
    PIN_SIZE(pega_region_table, 48);
    PIN(pega_region_table, size, 0, 4);
    PIN(pega_region_table, reserved, 4, 4);
    PIN(pega_region_table, register_memory, 8, 8);
    PIN(pega_region_table, unregister, 16, 8);
    PIN(pega_region_table, info, 24, 8);
    PIN(pega_region_table, export_descriptor, 32, 8);
    PIN(pega_region_table, import_descriptor, 40, 8);
}

TEST(AbiLayout, Span) {
    PIN_SIZE(pega_span, 80);
    PIN(pega_span, local_region, 0, 8);
    PIN(pega_span, remote_region, 8, 8);
    PIN(pega_span, local_base, 16, 8);
    PIN(pega_span, local_stride, 24, 8);
    PIN(pega_span, local_segment_stride, 32, 8);
    PIN(pega_span, remote_base, 40, 8);
    PIN(pega_span, remote_stride, 48, 8);
    PIN(pega_span, remote_segment_stride, 56, 8);
    PIN(pega_span, page_bytes, 64, 8);
    PIN(pega_span, segments, 72, 4);
    PIN(pega_span, reserved, 76, 4);
}

TEST(AbiLayout, BatchOption) {
    PIN_SIZE(pega_batch_option, 24);
    PIN(pega_batch_option, size, 0, 4);
    PIN(pega_batch_option, kind, 4, 4);
    PIN(pega_batch_option, flags, 8, 4);
    PIN(pega_batch_option, reserved, 12, 4);
    PIN(pega_batch_option, next, 16, 8);
}

TEST(AbiLayout, Batch) {
    PIN_SIZE(pega_batch, 136);
    PIN(pega_batch, size, 0, 4);
    PIN(pega_batch, op, 4, 4);
    PIN(pega_batch, format, 8, 4);
    PIN(pega_batch, span_size, 12, 4);
    PIN(pega_batch, user_data, 16, 8);
    PIN(pega_batch, spans, 24, 8);
    PIN(pega_batch, span_count, 32, 8);
    PIN(pega_batch, local_index, 40, 8);
    PIN(pega_batch, remote_index, 48, 8);
    PIN(pega_batch, index_count, 56, 8);
    PIN(pega_batch, local_region, 64, 8);
    PIN(pega_batch, remote_region, 72, 8);
    PIN(pega_batch, local_offsets, 80, 8);
    PIN(pega_batch, remote_offsets, 88, 8);
    PIN(pega_batch, lengths, 96, 8);
    PIN(pega_batch, flat_count, 104, 8);
    PIN(pega_batch, deadline_ns, 112, 8);
    PIN(pega_batch, priority, 120, 4);
    PIN(pega_batch, mark_every, 124, 4);
    PIN(pega_batch, options, 128, 8);
}

TEST(AbiLayout, ChannelParams) {
    PIN_SIZE(pega_channel_params, 32);
    PIN(pega_channel_params, size, 0, 4);
    PIN(pega_channel_params, priority, 4, 4);
    PIN(pega_channel_params, address, 8, 8);
    PIN(pega_channel_params, address_length, 16, 8);
    PIN(pega_channel_params, queue_depth, 24, 4);
    PIN(pega_channel_params, reserved, 28, 4);
}

TEST(AbiLayout, ChannelTable) {
    PIN_SIZE(pega_channel_table, 40);
    PIN(pega_channel_table, size, 0, 4);
    PIN(pega_channel_table, reserved, 4, 4);
    PIN(pega_channel_table, open, 8, 8);
    PIN(pega_channel_table, state, 16, 8);
    PIN(pega_channel_table, submit, 24, 8);
    PIN(pega_channel_table, close, 32, 8);
}

TEST(AbiLayout, Completion) {
    PIN_SIZE(pega_completion, 48);
    PIN(pega_completion, size, 0, 4);
    PIN(pega_completion, flags, 4, 4);
    PIN(pega_completion, user_data, 8, 8);
    PIN(pega_completion, status, 16, 4);
    PIN(pega_completion, native_code, 20, 4);
    PIN(pega_completion, bytes, 24, 8);
    PIN(pega_completion, landed_spans, 32, 8);
    PIN(pega_completion, first_bad, 40, 8);
}

TEST(AbiLayout, CompletionTable) {
    PIN_SIZE(pega_completion_table, 32);
    PIN(pega_completion_table, size, 0, 4);
    PIN(pega_completion_table, reserved, 4, 4);
    PIN(pega_completion_table, poll, 8, 8);
    PIN(pega_completion_table, wait_fd, 16, 8);
    PIN(pega_completion_table, arm, 24, 8);
}

TEST(AbiLayout, DeviceInfo) {
    PIN_SIZE(pega_device_info, 200);
    PIN(pega_device_info, size, 0, 4);
    PIN(pega_device_info, numa_node, 4, 4);
    PIN(pega_device_info, index, 8, 4);
    PIN(pega_device_info, kind, 12, 4);
    PIN(pega_device_info, memory_bytes, 16, 8);
    PIN(pega_device_info, uuid, 24, 48);
    PIN(pega_device_info, text, 72, 128);
}

TEST(AbiLayout, Cost) {
    PIN_SIZE(pega_cost, 32);
    PIN(pega_cost, latency_ns, 0, 4);
    PIN(pega_cost, per_descriptor_ns, 4, 4);
    PIN(pega_cost, bytes_per_second, 8, 8);
    PIN(pega_cost, min_efficient_bytes, 16, 8);
    PIN(pega_cost, paths, 24, 4);
    PIN(pega_cost, reserved, 28, 4);
}

TEST(AbiLayout, Capabilities) {
    PIN_SIZE(pega_capabilities, 120);
    PIN(pega_capabilities, size, 0, 4);
    PIN(pega_capabilities, flags, 4, 4);
    PIN(pega_capabilities, matrix, 8, 16);
    PIN(pega_capabilities, source_mask, 24, 4);
    PIN(pega_capabilities, alignment, 28, 4);
    PIN(pega_capabilities, max_descriptors, 32, 8);
    PIN(pega_capabilities, max_page_bytes, 40, 8);
    PIN(pega_capabilities, max_batches, 48, 4);
    PIN(pega_capabilities, threads, 52, 4);
    PIN(pega_capabilities, cost, 56, 64);
}

TEST(AbiLayout, OpenParams) {
    PIN_SIZE(pega_open_params, 24);
    PIN(pega_open_params, size, 0, 4);
    PIN(pega_open_params, index, 4, 4);
    PIN(pega_open_params, flags, 8, 4);
    PIN(pega_open_params, option_count, 12, 4);
    PIN(pega_open_params, options, 16, 8);
}

TEST(AbiLayout, BackendTable) {
    PIN_SIZE(pega_backend_table, 64);
    PIN(pega_backend_table, size, 0, 4);
    PIN(pega_backend_table, reserved, 4, 4);
    PIN(pega_backend_table, probe, 8, 8);
    PIN(pega_backend_table, open, 16, 8);
    PIN(pega_backend_table, close, 24, 8);
    PIN(pega_backend_table, capabilities, 32, 8);
    PIN(pega_backend_table, address, 40, 8);
    PIN(pega_backend_table, extension, 48, 8);
    PIN(pega_backend_table, error_text, 56, 8);
}

TEST(AbiLayout, NotifyOption) {
    PIN_SIZE(pega_notify_option, 32);
    PIN(pega_notify_option, base, 0, 24);
    PIN(pega_notify_option, value, 24, 4);
    PIN(pega_notify_option, reserved, 28, 4);
}

TEST(AbiLayout, ExtNotify) {
    PIN_SIZE(pega_ext_notify, 24);
    PIN(pega_ext_notify, size, 0, 4);
    PIN(pega_ext_notify, reserved, 4, 4);
    PIN(pega_ext_notify, count, 8, 8);
    PIN(pega_ext_notify, consume, 16, 8);
}

TEST(AbiLayout, StreamOption) {
    PIN_SIZE(pega_stream_option, 40);
    PIN(pega_stream_option, base, 0, 24);
    PIN(pega_stream_option, wait, 24, 8);
    PIN(pega_stream_option, record, 32, 8);
}

TEST(AbiLayout, ExtStream) {
    PIN_SIZE(pega_ext_stream, 64);
    PIN(pega_ext_stream, size, 0, 4);
    PIN(pega_ext_stream, reserved, 4, 4);
    PIN(pega_ext_stream, create, 8, 8);
    PIN(pega_ext_stream, wrap, 16, 8);
    PIN(pega_ext_stream, export_event, 24, 8);
    PIN(pega_ext_stream, import_event, 32, 8);
    PIN(pega_ext_stream, signal, 40, 8);
    PIN(pega_ext_stream, query, 48, 8);
    PIN(pega_ext_stream, destroy, 56, 8);
}

TEST(AbiLayout, ExtCancel) {
    PIN_SIZE(pega_ext_cancel, 16);
    PIN(pega_ext_cancel, size, 0, 4);
    PIN(pega_ext_cancel, reserved, 4, 4);
    PIN(pega_ext_cancel, cancel, 8, 8);
}

TEST(AbiLayout, Constants) {
    EXPECT_EQ(static_cast<long long>(PEGA_ABI_MAJOR), 1);
    EXPECT_EQ(static_cast<long long>(PEGA_LOG_DEBUG), 0);
    EXPECT_EQ(static_cast<long long>(PEGA_LOG_INFO), 1);
    EXPECT_EQ(static_cast<long long>(PEGA_LOG_WARNING), 2);
    EXPECT_EQ(static_cast<long long>(PEGA_LOG_ERROR), 3);
    EXPECT_EQ(static_cast<long long>(PEGA_MEMORY_HOST), 0);
    EXPECT_EQ(static_cast<long long>(PEGA_MEMORY_GPU), 1);
    EXPECT_EQ(static_cast<long long>(PEGA_MEMORY_FILE), 2);
    EXPECT_EQ(static_cast<long long>(PEGA_MEMORY_REMOTE), 3);
    EXPECT_EQ(static_cast<long long>(PEGA_MEMORY_KINDS), 4);
    EXPECT_EQ(static_cast<long long>(PEGA_SOURCE_ADDRESS), 0);
    EXPECT_EQ(static_cast<long long>(PEGA_SOURCE_ALLOCATE), 1);
    EXPECT_EQ(static_cast<long long>(PEGA_SOURCE_SHM), 2);
    EXPECT_EQ(static_cast<long long>(PEGA_SOURCE_IPC), 3);
    EXPECT_EQ(static_cast<long long>(PEGA_SOURCE_PATH), 4);
    EXPECT_EQ(static_cast<long long>(PEGA_REGION_READ_ONLY), 1);
    EXPECT_EQ(static_cast<long long>(PEGA_REGION_SHARED), 2);
    EXPECT_EQ(static_cast<long long>(PEGA_OP_READ), 1);
    EXPECT_EQ(static_cast<long long>(PEGA_OP_WRITE), 2);
    EXPECT_EQ(static_cast<long long>(PEGA_FORMAT_SPANS), 0);
    EXPECT_EQ(static_cast<long long>(PEGA_FORMAT_FLAT), 1);
    EXPECT_EQ(static_cast<long long>(PEGA_OPTION_HINT), 1);
    EXPECT_EQ(static_cast<long long>(PEGA_COMPLETION_TERMINAL), 1);
    EXPECT_EQ(static_cast<long long>(PEGA_COMPLETION_MARK), 2);
    EXPECT_EQ(static_cast<long long>(PEGA_COMPLETION_QUIESCED), 4);
    EXPECT_EQ(static_cast<long long>(PEGA_NUMA_ANY), -1);
    EXPECT_EQ(static_cast<long long>(PEGA_CAP_READ), 1);
    EXPECT_EQ(static_cast<long long>(PEGA_CAP_WRITE), 2);
    EXPECT_EQ(static_cast<long long>(PEGA_CAP_CANCEL), 4);
    EXPECT_EQ(static_cast<long long>(PEGA_CAP_NOTIFY), 8);
    EXPECT_EQ(static_cast<long long>(PEGA_CAP_STREAM), 16);
    EXPECT_EQ(static_cast<long long>(PEGA_CAP_MARKS), 32);
    EXPECT_EQ(static_cast<long long>(PEGA_CAP_PEERS), 64);
    EXPECT_EQ(static_cast<long long>(PEGA_CAP_OWN_THREADS), 128);
    EXPECT_EQ(static_cast<long long>(PEGA_OPEN_CALLER_POLLS), 1);
    EXPECT_EQ(static_cast<long long>(PEGA_OPTION_NOTIFY), 2);
    EXPECT_EQ(static_cast<long long>(PEGA_OPTION_STREAM), 1);
    EXPECT_EQ(static_cast<long long>(PEGA_EVENT_SHARED), 1);
    EXPECT_EQ(static_cast<long long>(PEGA_POLICY_MAX_USES), 15);
    EXPECT_EQ(std::uint64_t{PEGA_NO_BAD}, 0xFFFF'FFFF'FFFF'FFFFU);
    EXPECT_EQ(static_cast<long long>(PEGA_OK), 0);
    EXPECT_EQ(static_cast<long long>(PEGA_PENDING), 1);
    EXPECT_EQ(static_cast<long long>(PEGA_RETRY), -1);
    EXPECT_EQ(static_cast<long long>(PEGA_QUEUE_FULL), -2);
    EXPECT_EQ(static_cast<long long>(PEGA_RETRY_OTHER_PATH), -3);
    EXPECT_EQ(static_cast<long long>(PEGA_PEER_LOST), -4);
    EXPECT_EQ(static_cast<long long>(PEGA_REGION_LOST), -5);
    EXPECT_EQ(static_cast<long long>(PEGA_INVALID), -6);
    EXPECT_EQ(static_cast<long long>(PEGA_UNSUPPORTED), -7);
    EXPECT_EQ(static_cast<long long>(PEGA_NO_MEMORY), -8);
    EXPECT_EQ(static_cast<long long>(PEGA_CANCELED), -9);
    EXPECT_EQ(static_cast<long long>(PEGA_CORRUPT), -10);
}

TEST(AbiLayout, Identifiers) {
    EXPECT_STREQ(PEGA_ENTRY_SYMBOL, "pegaflow_entry");
    EXPECT_STREQ(PEGA_HOST_MODULES, "pega.host.modules/1");
    EXPECT_STREQ(PEGA_REGION_TABLE, "pega.region/1");
    EXPECT_STREQ(PEGA_CHANNEL_TABLE, "pega.channel/1");
    EXPECT_STREQ(PEGA_COMPLETION_TABLE, "pega.completion/1");
    EXPECT_STREQ(PEGA_BACKEND_TABLE, "pega.backend/1");
    EXPECT_STREQ(PEGA_EVICTION_TABLE, "pega.policy.eviction/1");
    EXPECT_STREQ(PEGA_ADMISSION_TABLE, "pega.policy.admission/1");
    EXPECT_STREQ(PEGA_EXT_NOTIFY, "pega.ext.notify/1");
    EXPECT_STREQ(PEGA_EXT_STREAM, "pega.ext.stream/1");
    EXPECT_STREQ(PEGA_EXT_CANCEL, "pega.ext.cancel/1");
}

}  // namespace

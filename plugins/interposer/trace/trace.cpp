// SPDX-License-Identifier: Apache-2.0
// trace.cpp - wraps a back end and writes one line of JSON a batch: when, which way, how much, how it ended.
//
// Options: file=PATH (appended to; without it nothing is written).
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>

#include "../forward/forward.hpp"

namespace interposer {
namespace {

class Trace final : public Hooks {
public:
    Trace(const pega_host* host, std::FILE* file) : host_(host), file_(file) {}
    ~Trace() override {
        if (file_ != nullptr) std::fclose(file_);
    }

    Verdict decide(const pega_batch&) override { return {}; }
    void ended(const pega_batch& batch, const pega_completion& record, std::uint64_t submitted_ns) override {
        if (file_ == nullptr) return;
        const std::uint64_t pages = batch.format == PEGA_FORMAT_FLAT ? batch.flat_count : batch.index_count;
        const std::lock_guard lock(mutex_);
        std::fprintf(file_,
                     "{\"submit_ns\":%lu,\"end_ns\":%lu,\"op\":\"%s\",\"format\":\"%s\",\"spans\":%lu,\"pages\":%lu,\"bytes\":%"
                     "lu,\"status\":%d,"
                     "\"native_code\":%d}\n",
                     static_cast<unsigned long>(submitted_ns), static_cast<unsigned long>(host_->now_ns(host_->context)),
                     batch.op == PEGA_OP_READ ? "read" : "write", batch.format == PEGA_FORMAT_FLAT ? "flat" : "spans",
                     static_cast<unsigned long>(batch.format == PEGA_FORMAT_FLAT ? 1 : batch.span_count),
                     static_cast<unsigned long>(pages), static_cast<unsigned long>(record.bytes), record.status,
                     record.native_code);
        std::fflush(file_);
    }

private:
    const pega_host* host_;
    std::mutex mutex_;
    std::FILE* file_;  // guarded by mutex_
};

}  // namespace

const char* const kName = "trace";

std::unique_ptr<Hooks> make_hooks(const pega_host* host, const pega_option* options, std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i) {
        if (std::strcmp(options[i].key, "file") == 0 || std::strncmp(options[i].key, "inner", 5) == 0) continue;
        pegaflow::backend::log(host, PEGA_LOG_ERROR, "trace", "unknown option %s; there is file=PATH", options[i].key);
        return nullptr;
    }
    const char* path = pegaflow::backend::option(options, count, "file", nullptr);
    std::FILE* file = path == nullptr ? nullptr : std::fopen(path, "ae");
    if (path != nullptr && file == nullptr) {
        pegaflow::backend::log(host, PEGA_LOG_ERROR, "trace", "cannot open the file %s", path);
        return nullptr;
    }
    return std::make_unique<Trace>(host, file);
}

}  // namespace interposer

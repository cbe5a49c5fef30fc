// SPDX-License-Identifier: Apache-2.0
// fio as the reference of `pegaflow bench ssd`: the same load on the same file, by its io_uring engine with registered files
// and buffers.
#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "tools/pegaflow/bench_ssd.hpp"

extern char** environ;

namespace pegaflow::cli::ssd {
namespace {

// Runs a program found in PATH and returns what it wrote to standard output and error. kNotFound when it is not there.
Result<std::string> output_of(const std::vector<std::string>& command) {
    std::vector<char*> arguments;
    for (const std::string& part : command) arguments.push_back(const_cast<char*>(part.c_str()));
    arguments.push_back(nullptr);
    int ends[2] = {-1, -1};
    if (::pipe2(ends, O_CLOEXEC) != 0) return fail(Code::kNoMemory, "cannot make a pipe", errno);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    ::posix_spawn_file_actions_adddup2(&actions, ends[1], 2);
    pid_t child = 0;
    const int error = ::posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    std::string out;
    char buffer[65536];
    for (ssize_t got = 1; error == 0 && got > 0;) {
        got = ::read(ends[0], buffer, sizeof buffer);
        if (got > 0) out.append(buffer, static_cast<std::size_t>(got));
        if (got < 0 && errno == EINTR) got = 1;
    }
    ::close(ends[0]);
    if (error != 0)
        return fail(Code::kNotFound,
                    fmt::format("{} is not there (package {}): {}", command[0], command[0], std::strerror(error)));
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return fail(Code::kInternal, fmt::format("{} failed: {}", command[0], out.substr(0, 2000)));
    return out;
}

std::string escaped(const std::vector<std::string>& paths) {
    std::string out;
    for (const std::string& path : paths) {
        if (!out.empty()) out += ':';
        for (const char c : path) out += c == ':' ? std::string("\\:") : std::string(1, c);
    }
    return out;
}

constexpr const char* kVerify = "--verify=crc32c";
constexpr const char* kDoNotCheck = "--do_verify=0";
constexpr const char* kNoState = "--verify_state_save=0";  // else a file in the working directory

std::uint64_t file_bytes(const Load& load, const Bench& bench) {
    return bench.bytes() / bench.paths().size() / load.block * load.block;
}

std::vector<std::string> command_for(const Load& load, const Bench& bench, const Arguments& a, const FioExtra& extra) {
    const char* random = load.sequential ? "" : "rand";
    std::vector<std::string> out = {"fio",
                                    "--name=reference",
                                    "--output-format=json",
                                    "--group_reporting",
                                    "--thread",
                                    "--direct=1",
                                    "--time_based",
                                    fmt::format("--filename={}", escaped(bench.paths())),
                                    fmt::format("--rw={}{}", random,
                                                load.mode == Mode::kRead    ? "read"
                                                : load.mode == Mode::kWrite ? "write"
                                                                            : "rw"),
                                    fmt::format("--rwmixread={}", a.read_percent),
                                    fmt::format("--bs={}", load.block),
                                    fmt::format("--filesize={}", file_bytes(load, bench)),
                                    fmt::format("--iodepth={}", load.depth),
                                    fmt::format("--numjobs={}", load.threads),
                                    fmt::format("--runtime={}ms", static_cast<int>(a.seconds * 1000)),
                                    fmt::format("--ramp_time={}ms", static_cast<int>(a.warmup_seconds * 1000)),
                                    fmt::format("--randseed={}", a.seed)};
    if (!load.sequential) out.emplace_back("--norandommap");
    if (extra.verify) out.insert(out.end(), {kVerify, kNoState});
    // The same bytes each time, else most of its time would be making new ones; and nothing is read back afterwards.
    if (extra.verify && load.mode != Mode::kRead) out.insert(out.end(), {kDoNotCheck, "--verify_pattern=0x70656761"});
    if (extra.flush_bytes > 0) {
        const auto blocks = static_cast<std::uint64_t>(extra.flush_bytes / static_cast<double>(load.block));
        out.push_back(fmt::format("--fdatasync={}", std::max<std::uint64_t>(1, blocks)));
    }
    if (a.backend == "passthru") {
        for (const char* part : {"--ioengine=io_uring_cmd", "--cmd_type=nvme"}) out.emplace_back(part);
    } else {
        out.emplace_back("--ioengine=io_uring");
    }
    for (const char* part : {"--fixedbufs=1", "--registerfiles=1"}) out.emplace_back(part);
    if (a.fio_memory == "huge") out.emplace_back("--iomem=mmaphuge");
    if (a.backend == "uring-poll") out.emplace_back("--hipri=1");
    if (load.batch > 1) {
        out.push_back(fmt::format("--iodepth_batch_submit={}", load.batch));
        out.push_back(fmt::format("--iodepth_batch_complete_min=1"));
        out.push_back(fmt::format("--iodepth_batch_complete_max={}", load.depth));
    }
    return out;
}

double number(const boost::json::object& object, const char* key) {
    const boost::json::value* value = object.if_contains(key);
    return value != nullptr && value->is_number() ? value->to_number<double>() : 0;
}

void add_direction(const boost::json::object& job, const char* direction, Run& out, double& most) {
    const auto& part = job.at(direction).as_object();
    const double ios = number(part, "total_ios");
    out.bytes_per_s += number(part, "bw_bytes");
    out.ops_per_s += number(part, "iops");
    if (ios <= most) return;  // of a mixed load the latency of the larger part is told
    most = ios;
    const boost::json::object empty;
    const auto* latency = part.if_contains("clat_ns");
    const boost::json::object& l = latency != nullptr && latency->is_object() ? latency->get_object() : empty;
    const auto* found = l.if_contains("percentile");
    const boost::json::object& p = found != nullptr && found->is_object() ? found->get_object() : empty;
    out.time_us = {{"p50", number(p, "50.000000") / 1e3}, {"p90", number(p, "90.000000") / 1e3},
                   {"p99", number(p, "99.000000") / 1e3}, {"p999", number(p, "99.900000") / 1e3},
                   {"min", number(l, "min") / 1e3},       {"max", number(l, "max") / 1e3},
                   {"mean", number(l, "mean") / 1e3},     {"stddev", number(l, "stddev") / 1e3}};
}

}  // namespace

Result<std::string> fio_version() {
    PEGA_ASSIGN(std::string text, output_of({"fio", "--version"}));
    text.erase(text.find_last_not_of(" \n") + 1);
    return text;
}

Result<void> prepare_verification(const Load& load, const Bench& bench, const Arguments& arguments) {
    const std::vector<std::string> command = {"fio",
                                              "--name=contents",
                                              "--thread",
                                              "--direct=1",
                                              fmt::format("--filename={}", escaped(bench.paths())),
                                              "--rw=write",
                                              fmt::format("--bs={}", load.block),
                                              fmt::format("--filesize={}", file_bytes(load, bench)),
                                              fmt::format("--randseed={}", arguments.seed),
                                              "--ioengine=io_uring",
                                              "--iodepth=32",
                                              kVerify,
                                              kNoState,
                                              kDoNotCheck};
    PEGA_TRY(output_of(command));
    return {};
}

Result<Run> run_fio(const Load& load, const Bench& bench, const Arguments& arguments, const FioExtra& extra,
                    std::vector<std::string>* command) {
    *command = command_for(load, bench, arguments, extra);
    const double workers_before = block_worker_seconds();
    PEGA_ASSIGN(const std::string text, output_of(*command));
    const double workers = std::max(0.0, block_worker_seconds() - workers_before);
    // Notes may stand before the report.
    const std::size_t begin = text.find('{');
    boost::system::error_code error;
    const boost::json::value report = boost::json::parse(begin == std::string::npos ? "" : text.substr(begin), error);
    const boost::json::value* jobs = error || !report.is_object() ? nullptr : report.get_object().if_contains("jobs");
    if (jobs == nullptr || !jobs->is_array() || jobs->get_array().empty())
        return fail(Code::kInternal, fmt::format("fio's report cannot be read: {}", text.substr(0, 500)));
    const auto& job = jobs->get_array()[0].as_object();
    Run out;
    double most = 0;
    for (const char* direction : {"read", "write"}) add_direction(job, direction, out, most);
    // Of one processor, of each job's run time, which is the same for all of them.
    const double busy = (number(job, "usr_cpu") + number(job, "sys_cpu")) / 100 * load.threads;
    const double working = workers / (arguments.seconds + arguments.warmup_seconds);
    out.cpu_us_per_op = out.ops_per_s > 0 ? (busy + working) * 1e6 / out.ops_per_s : 0;
    return out;
}

}  // namespace pegaflow::cli::ssd

// SPDX-License-Identifier: Apache-2.0
// The measured part of `pegaflow bench ssd`: every thread of the load is one device handle of the back end, and everything
// after the first submission happens on its progress thread: a batch that ends is measured and submitted again.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <thread>

#include "pegaflow/bytes.hpp"
#include "pegaflow/transfer.hpp"
#include "tools/pegaflow/bench_ssd.hpp"

namespace pegaflow::cli::ssd {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kFillBytes = 1 << 20;
constexpr std::uint64_t kMaxChecked = 4096;  // blocks read back after a run

std::uint64_t now_ns() { return static_cast<std::uint64_t>(Clock::now().time_since_epoch().count()); }

class Random {
public:
    explicit Random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ULL + 1) {}
    std::uint64_t below(std::uint64_t limit) noexcept {
        state_ ^= state_ << 13;
        state_ ^= state_ >> 7;
        state_ ^= state_ << 17;
        return static_cast<std::uint64_t>((static_cast<unsigned __int128>(state_) * limit) >> 64);
    }

private:
    std::uint64_t state_;
};

// One device handle with its file and its memory.
struct Worker {
    Device* device = nullptr;
    Region file, memory;
    Channel channel;
};

// What a run shares between its threads; each Slot belongs to one progress thread.
struct Shared {
    Load load;
    std::uint64_t blocks = 0, slots = 0;
    std::uint32_t read_percent = 0;
    std::atomic<bool> measuring{false}, stop{false}, failed{false};
    std::atomic<std::uint64_t> running{0};
    std::vector<std::uint8_t>* written = nullptr;  // by block: 1 = by this run
    Error error;                                   // of the first failure; written before `failed`
};

// What the slots of one thread did in the measured time. Together, because a histogram is larger than what a processor keeps
// near at hand; their batches end on one thread.
struct alignas(64) Tally {
    std::uint64_t ops = 0;
    Histogram latency;
};

// One batch after another. Each slot has blocks of its own (every slots-th), so that what is in a block is known at every time.
struct Slot {
    Shared* shared = nullptr;
    Worker* worker = nullptr;
    Tally* tally = nullptr;
    std::uint64_t number = 0, memory_offset = 0, next = 0, started = 0;
    Random random{1};
    Transfer transfer;
    bool reading = true;
    std::vector<std::uint64_t> at;  // blocks of the present batch

    std::uint64_t pick() {
        const std::uint64_t own = shared->blocks / shared->slots;
        const std::uint64_t row = shared->load.sequential ? next++ % own : random.below(own);
        return row * shared->slots + number;
    }

    // A block begins when the one before it has ended, `now`: that spares a look at the clock.
    void submit(std::uint64_t now) {
        const Load& load = shared->load;
        reading = load.mode == Mode::kRead || (load.mode == Mode::kMixed && random.below(100) < shared->read_percent);
        transfer.clear().flat(worker->memory, worker->file);
        if (reading) transfer.read();
        for (std::uint32_t i = 0; i < load.batch; ++i) {
            at[i] = pick();
            const std::uint64_t memory_at = memory_offset + i * load.block + (reading ? 0 : worker->memory.length() / 2);
            transfer.range(memory_at, at[i] * load.block, load.block);
        }
        transfer.on_done([this](const pega_completion& record) { done(record); });
        started = now;
        if (auto submitted = worker->channel.submit(transfer); !submitted) finish(submitted.error());
    }

    void done(const pega_completion& record) {
        if (record.status != PEGA_OK)
            return finish({static_cast<Code>(record.status),
                           fmt::format("a transfer failed: {}", std::strerror(record.native_code)), record.native_code});
        const std::uint64_t now = now_ns();
        if (shared->measuring.load(std::memory_order_relaxed)) {
            tally->latency.add(now - started);
            tally->ops += shared->load.batch;
        }
        if (!reading) {
            for (const std::uint64_t block : at) (*shared->written)[block] = 1;
        }
        if (shared->stop.load(std::memory_order_relaxed)) {
            shared->running.fetch_sub(1, std::memory_order_release);
            shared->running.notify_all();
            return;
        }
        submit(now);
    }

    void finish(const Error& error) {
        if (!shared->failed.exchange(true)) shared->error = error;
        shared->stop.store(true);
        shared->running.fetch_sub(1, std::memory_order_release);
        shared->running.notify_all();
    }
};

void wait_until_zero(std::atomic<std::uint64_t>& count) {
    for (std::uint64_t now = count.load(std::memory_order_acquire); now != 0; now = count.load(std::memory_order_acquire))
        count.wait(now, std::memory_order_acquire);
}

Result<void> transfer_now(Worker& worker, bool read, std::uint64_t memory_offset, std::uint64_t offset, std::uint64_t length) {
    Transfer transfer;
    transfer.flat(worker.memory, worker.file).range(memory_offset, offset, length);
    if (read) transfer.read();
    PEGA_ASSIGN(const Completion completion, worker.channel.submit_wait(transfer));
    PEGA_TRY(completion.wait());
    return {};
}

}  // namespace

const char* to_string(Mode mode) noexcept { return mode == Mode::kRead ? "read" : mode == Mode::kWrite ? "write" : "mixed"; }

struct Bench::State {
    Arguments arguments;
    std::vector<std::string> paths;
    std::vector<std::string> own_files;  // made by us; deleted at the end
    std::uint64_t bytes = 0;
    std::uint64_t memory_bytes = 0;
    std::unique_ptr<Fabric> fabric;
    std::vector<Worker> workers;
    bool filled = false;
    std::uint64_t runs = 0;

    ~State() {
        workers.clear();
        fabric.reset();
        for (const std::string& path : own_files) ::unlink(path.c_str());
    }
    Result<void> make_file(const std::string& directory, std::uint64_t length);
    Result<void> choose_paths();
    Result<void> open_fabric();
    Result<void> open_worker(std::uint32_t index, std::uint64_t memory);
    std::uint8_t* memory(std::size_t worker) { return static_cast<std::uint8_t*>(workers[worker].memory.address()); }
    std::uint64_t slot_seed(std::uint64_t slot) const { return arguments.seed + (runs << 32) + slot + 1; }
    std::vector<std::unique_ptr<Slot>> make_slots(Shared& shared);
    Result<void> drive(Shared& shared, std::vector<std::unique_ptr<Slot>>& slots, Run& out);
    Result<void> check(const Load& load, const std::vector<std::unique_ptr<Slot>>& slots,
                       const std::vector<std::uint8_t>& written, Run& out);
};

// A file of our own in a directory.
Result<void> Bench::State::make_file(const std::string& directory, std::uint64_t length) {
    own_files.push_back(fmt::format("{}/pegaflow-bench-ssd.{}.{}", directory, ::getpid(), own_files.size()));
    const std::string& path = own_files.back();
    const int fd = ::open(path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    const int why = fd < 0 ? errno : ::posix_fallocate(fd, 0, static_cast<off_t>(length));
    if (fd >= 0) ::close(fd);
    if (why == 0) return {};
    return fail(Code::kInvalid, fmt::format("cannot make {} of {}: {}", path, format_size(length), std::strerror(why)), why);
}

Result<void> Bench::State::choose_paths() {
    if (arguments.paths.empty()) arguments.paths = {"/var/tmp"};
    PEGA_ASSIGN(bytes, parse_size(arguments.file_size));
    const auto directory = [](const std::string& path) {
        std::error_code error;
        return std::filesystem::is_directory(path, error);
    };
    if (std::all_of(arguments.paths.begin(), arguments.paths.end(), directory)) {
        for (const std::string& path : arguments.paths) PEGA_TRY(make_file(path, bytes / arguments.paths.size() + kFillBytes));
        paths = own_files;
        return {};
    }
    if (!arguments.overwrite) {
        return fail(Code::kInvalid,
                    fmt::format("{} is overwritten by this benchmark, also to measure reads; say --overwrite when "
                                "nothing on it is needed, or name directories",
                                arguments.paths[0]));
    }
    paths = arguments.paths;
    return {};
}

Result<void> Bench::State::open_fabric() {
    FabricOptions options{.search_path = arguments.search_path, .backends = {"nvme"}};
    auto& nvme = options.options["nvme"];
    nvme["handles"] = std::to_string(arguments.threads);
    nvme["depth"] = std::to_string(std::max<std::uint32_t>(arguments.depth, 32));
    nvme["depth_bytes"] = "4G";
    if (arguments.backend == "uring-poll") nvme["poll"] = "on";
    if (arguments.backend == "passthru") nvme["passthrough"] = "on";
    for (const std::string& option : arguments.options) {
        const std::size_t equals = std::min(option.find('='), option.size() - 1);
        nvme[option.substr(0, equals)] = option.substr(equals + 1);
    }
    PEGA_ASSIGN(fabric, Fabric::open(std::move(options)));
    return {};
}

Result<void> Bench::State::open_worker(std::uint32_t index, std::uint64_t memory_length) {
    Worker worker;
    PEGA_ASSIGN(worker.device, fabric->device(fmt::format("nvme:{}", index)));
    std::string handle;
    for (const std::string& path : paths) handle += (handle.empty() ? "" : std::string(1, '\0')) + path;
    pega_memory memory{};
    memory.size = sizeof memory;
    memory.kind = PEGA_MEMORY_FILE;
    memory.source = PEGA_SOURCE_PATH;
    memory.length = bytes;
    memory.handle = handle.data();
    memory.handle_length = handle.size();
    PEGA_ASSIGN(worker.file, worker.device->register_memory(memory));
    PEGA_ASSIGN(worker.memory, worker.device->allocate(PEGA_MEMORY_HOST, 2 * memory_length));  // to read into, to write from
    PEGA_ASSIGN(worker.channel, worker.device->open_channel({}, 1024));
    workers.push_back(std::move(worker));
    return {};
}

Bench::Bench(std::unique_ptr<State> state) : state_(std::move(state)) {}
Bench::~Bench() = default;
const std::vector<std::string>& Bench::paths() const noexcept { return state_->paths; }
std::uint64_t Bench::bytes() const noexcept { return state_->bytes; }
void Bench::note_foreign_writes() noexcept { state_->filled = false; }
bool Bench::huge_memory() const {
    const Region& memory = state_->workers[0].memory;
    return in_huge_pages(memory.address(), memory.length());
}

Result<std::unique_ptr<Bench>> Bench::open(const Arguments& arguments) {
    auto state = std::make_unique<State>();
    state->arguments = arguments;
    PEGA_TRY(state->choose_paths());
    PEGA_TRY(state->open_fabric());
    std::uint64_t largest = kFillBytes;
    std::stringstream parts(arguments.sizes);
    for (std::string part; std::getline(parts, part, ',');) {
        PEGA_ASSIGN(const std::uint64_t size, parse_size(part));
        largest = std::max(largest, size);
    }
    const std::uint64_t per_thread = largest * std::max<std::uint64_t>(std::max(arguments.depth, arguments.batch), 32);
    for (std::uint32_t i = 0; i < arguments.threads; ++i) PEGA_TRY(state->open_worker(i, per_thread));
    for (std::size_t i = 0; i < state->workers.size(); ++i) std::memset(state->memory(i), 0x11, 2 * per_thread);
    return std::unique_ptr<Bench>(new Bench(std::move(state)));
}

Result<void> Bench::fill() {
    State& s = *state_;
    if (s.filled) return {};
    for (std::uint64_t at = 0; at < s.bytes; at += kFillBytes) {
        const std::uint64_t length = std::min(kFillBytes, s.bytes - at);
        fill_words(s.memory(0), length, s.arguments.seed, at / 8);
        PEGA_TRY(transfer_now(s.workers[0], false, 0, at, length));
    }
    s.filled = true;
    return {};
}

// Reads back a sample of what was written, and compares what the last batches read.
Result<void> Bench::State::check(const Load& load, const std::vector<std::unique_ptr<Slot>>& slots,
                                 const std::vector<std::uint8_t>& written, Run& out) {
    const auto compare = [&](const std::uint8_t* bytes_there, std::uint64_t block) {
        const bool ours = written[block] != 0;
        out.wrong += wrong_words(bytes_there, load.block, ours ? slot_seed(block % slots.size()) : arguments.seed,
                                 ours ? 0 : block * load.block / 8);
        out.checked += load.block;
    };
    if (load.mode == Mode::kRead) {
        for (const auto& slot : slots) {
            const auto* at = static_cast<const std::uint8_t*>(slot->worker->memory.address()) + slot->memory_offset;
            for (std::uint32_t i = 0; i < load.batch; ++i) compare(at + i * load.block, slot->at[i]);
        }
    }
    // The sample goes by the same path into poisoned memory.
    Random random(arguments.seed + 77);
    const std::uint64_t count = std::min<std::uint64_t>(kMaxChecked, std::max<std::uint64_t>(16, (64 << 20) / load.block));
    for (std::uint64_t i = 0; i < count; ++i) {
        const std::uint64_t block = random.below(slots[0]->shared->blocks / slots.size() * slots.size());
        std::memset(memory(0), 0xEE, load.block);
        PEGA_TRY(transfer_now(workers[0], true, 0, block * load.block, load.block));
        compare(memory(0), block);
    }
    return {};
}

// Slots with their places in memory, and what they write.
std::vector<std::unique_ptr<Slot>> Bench::State::make_slots(Shared& shared) {
    const Load& load = shared.load;
    std::vector<std::unique_ptr<Slot>> slots;
    for (std::uint64_t i = 0; i < shared.slots; ++i) {
        auto slot = std::make_unique<Slot>();
        slot->shared = &shared;
        slot->worker = &workers[i % load.threads];
        slot->number = i;
        slot->memory_offset = i / load.threads * load.batch * load.block;
        slot->random = Random(slot_seed(i));
        slot->at.resize(load.batch);
        if (load.mode != Mode::kRead) {
            auto* at = memory(i % load.threads) + slot->worker->memory.length() / 2 + slot->memory_offset;
            for (std::uint32_t b = 0; b < load.batch; ++b) fill_words(at + b * load.block, load.block, slot_seed(i), 0);
        }
        slots.push_back(std::move(slot));
    }
    return slots;
}

// Runs the slots for the warm-up and the measured time, until the last batch has ended.
Result<void> Bench::State::drive(Shared& shared, std::vector<std::unique_ptr<Slot>>& slots, Run& out) {
    const std::uint32_t threads = shared.load.threads;
    std::vector<Tally> tallies(threads);
    for (std::size_t i = 0; i < slots.size(); ++i) slots[i]->tally = &tallies[i % threads];
    // A channel has one submitter at a time: the progress thread, from its first moment on.
    std::vector<Transfer> kicks(threads);
    for (std::uint32_t t = 0; t < threads; ++t) {
        kicks[t].flat(workers[t].memory, workers[t].file).on_done([&slots, t, threads](const pega_completion&) {
            for (std::size_t i = t; i < slots.size(); i += threads) slots[i]->submit(now_ns());
        });
        if (auto kicked = workers[t].channel.submit_wait(kicks[t]); !kicked) {
            for (std::size_t i = t; i < slots.size(); i += threads) slots[i]->finish(kicked.error());
        }
    }
    const auto pause = [&](double seconds) {
        const auto until = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
        for (auto now = Clock::now(); now < until && !shared.failed.load(); now = Clock::now())
            std::this_thread::sleep_for(std::min<Clock::duration>(until - now, std::chrono::milliseconds(100)));
    };
    pause(arguments.warmup_seconds);
    const CpuUse use;
    const auto begin = Clock::now();
    shared.measuring.store(true);
    pause(arguments.seconds);
    shared.measuring.store(false);
    const std::chrono::duration<double> took = Clock::now() - begin;
    const double cpu = use.seconds();
    shared.stop.store(true);
    wait_until_zero(shared.running);
    for (Transfer& kick : kicks) kick.clear();
    std::uint64_t ops = 0;
    for (auto& slot : slots) slot->transfer.clear();
    for (const Tally& tally : tallies) {
        ops += tally.ops;
        out.latency.merge(tally.latency);
    }
    if (shared.failed.load()) return fail(shared.error);
    out.ops_per_s = static_cast<double>(ops) / took.count();
    out.bytes_per_s = out.ops_per_s * static_cast<double>(shared.load.block);
    out.cpu_us_per_op = ops == 0 ? 0 : cpu * 1e6 / static_cast<double>(ops);
    return {};
}

Result<Run> Bench::run(const Load& load) {
    State& s = *state_;
    PEGA_TRY(fill());
    ++s.runs;
    Shared shared;
    shared.load = load;
    shared.blocks = s.bytes / load.block;
    shared.read_percent = s.arguments.read_percent;
    std::vector<std::uint8_t> written(shared.blocks);
    shared.written = &written;
    shared.slots = std::uint64_t{std::max(1U, load.depth / load.batch)} * load.threads;
    if (shared.blocks < shared.slots * load.batch)
        return fail(Code::kInvalid, fmt::format("{} has too few blocks of {} for {} in flight", format_size(s.bytes),
                                                format_size(load.block), shared.slots * load.batch));
    shared.running.store(shared.slots);
    auto slots = s.make_slots(shared);
    if (load.mode != Mode::kRead) s.filled = false;
    Run out;
    PEGA_TRY(s.drive(shared, slots, out));
    if (s.arguments.verify) PEGA_TRY(s.check(load, slots, written, out));
    return out;
}

}  // namespace pegaflow::cli::ssd

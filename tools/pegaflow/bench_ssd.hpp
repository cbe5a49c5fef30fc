// SPDX-License-Identifier: Apache-2.0
// bench_ssd.hpp - the parts of `pegaflow bench ssd`: what is asked for, one measured run, the same by fio, and how it is told.
#pragma once

#include <array>
#include <boost/json.hpp>
#include <cstdint>
#include <iosfwd>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pegaflow/result.hpp"

namespace pegaflow::cli::ssd {

enum class Mode { kRead, kWrite, kMixed };
const char* to_string(Mode mode) noexcept;

struct Arguments {
    std::vector<std::string> paths;  // files, disks, or directories in which files are made and deleted
    std::string sizes = "4K,64K,1M";
    std::string modes = "read,write,mixed";
    std::string file_size = "1G";
    std::string backend = "uring";  // uring, uring-poll, passthru
    std::string compare;            // "fio"
    std::string fio_memory;         // huge, plain; "" = what ours is
    std::string json;               // a file; "-" = standard output
    std::vector<std::string> options;
    std::vector<std::string> search_path;
    std::uint32_t depth = 32, threads = 1, batch = 1, read_percent = 70;
    int repetitions = 3;
    double seconds = 2, warmup_seconds = 0.3, min_ratio = 0;
    std::uint64_t seed = 1;
    bool verify = true, csv = false, sequential = false, overwrite = false, tier = false;
};

// The lists of --block-size and --rw. kInvalid.
Result<std::vector<std::uint64_t>> parse_sizes(const std::string& text);
Result<std::vector<Mode>> parse_modes(const std::string& text);

// What one point does.
struct Load {
    Mode mode = Mode::kRead;
    std::uint64_t block = 0;
    std::uint32_t depth = 1, threads = 1, batch = 1;
    bool sequential = false;
};

// Counts by value, with less than 1 % error: 128 steps for each power of two.
class Histogram {
public:
    void add(std::uint64_t nanoseconds) noexcept;
    void merge(const Histogram& other) noexcept;
    std::uint64_t count() const noexcept { return count_; }
    double percentile_us(double p) const noexcept;
    double mean_us() const noexcept;
    double stddev_us() const noexcept;
    double min_us() const noexcept { return count_ == 0 ? 0 : static_cast<double>(min_) / 1e3; }
    double max_us() const noexcept { return static_cast<double>(max_) / 1e3; }

private:
    static constexpr unsigned kStepBits = 8;
    std::array<std::uint64_t, (64 - kStepBits + 2) << (kStepBits - 1)> counts_{};
    std::uint64_t count_ = 0, min_ = UINT64_MAX, max_ = 0;
    double sum_ = 0, squares_ = 0;
};

// Bytes that only their seed and place tell; lengths are multiples of 8.
void fill_words(std::uint8_t* to, std::uint64_t bytes, std::uint64_t seed, std::uint64_t first_word);
// How many bytes are in words that differ.
std::uint64_t wrong_words(const std::uint8_t* bytes, std::uint64_t length, std::uint64_t seed, std::uint64_t first_word);

// Whether a thread of this name is a worker of the kernel that hands requests to disks: what a device's queue has no room for
// at once, for whoever asked.
bool is_block_worker(std::string_view name) noexcept;
// What all of them have used; 0 where they cannot be seen.
double block_worker_seconds();
// What this process and they use from the construction on, without the thread that constructed it: it only waits for the
// others, and fio does not count the thread of its own that does. Looking at the workers is outside of what is counted.
class CpuUse {
public:
    double seconds() const;

private:
    double workers_ = block_worker_seconds();
    double others_ = others();  // looked at last here, and first at the end

    static double others();
};

// Whether most of a piece of this process's memory is in huge pages, however they came about.
bool in_huge_pages(const void* at, std::uint64_t length);
// As above, of what /proc/self/smaps says.
bool in_huge_pages(std::istream& maps, std::uint64_t at, std::uint64_t length);
// Bytes of huge pages that are set aside and that nobody has.
std::uint64_t free_huge_bytes();
// "huge" or "plain": what fio's buffers are for these loads, beside ours. kInvalid when what was asked for cannot be had.
Result<std::string> choose_fio_memory(const std::string& wanted, bool ours_huge, std::uint64_t buffer_bytes);

// One timed run, by us or by fio.
struct Run {
    double bytes_per_s = 0, ops_per_s = 0, cpu_us_per_op = 0;
    double digest_us_per_op = 0;  // of the tier: what making or checking a block's digest takes of that, measured alone
    double bytes_per_flush = 0;   // of the tier: written between two flushes
    Histogram latency;            // ours, of a batch
    boost::json::object time_us;  // fio's own
    std::uint64_t checked = 0;    // bytes compared
    std::uint64_t wrong = 0;      // bytes
};

double median(std::vector<double> values);  // 0 for nothing
// The median of what ours had in per cent of the reference's in the same repetition: a disk that others use has moods, which
// last longer than a repetition. What the reference does not know is left out.
double percent_of(const std::vector<Run>& reference, const std::vector<Run>& ours, double Run::* member);

// The file or disks under test, open in the back end once for each thread.
class Bench {
public:
    struct State;
    // kInvalid, kNotFound (no nvme back end here), and what registering the paths says.
    static Result<std::unique_ptr<Bench>> open(const Arguments& arguments);
    ~Bench();

    Result<Run> run(const Load& load);
    // Writes the pattern that reads expect, when something else has been written since.
    Result<void> fill();
    void note_foreign_writes() noexcept;
    const std::vector<std::string>& paths() const noexcept;
    std::uint64_t bytes() const noexcept;
    bool huge_memory() const;  // what moves is in huge pages

private:
    explicit Bench(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

// What fio does besides moving blocks, so that it does the same work as the tier.
struct FioExtra {
    double flush_bytes = 0;  // a flush after so much that it writes; 0 = none
    bool verify = false;     // a CRC32C of each block, made where it writes; checked where it only reads, written before
};

// The same load by fio. kNotFound when there is no fio, kInternal with what it said otherwise.
Result<Run> run_fio(const Load& load, const Bench& bench, const Arguments& arguments, const FioExtra& extra,
                    std::vector<std::string>* command);
// Writes blocks that fio can verify all over the file. As run_fio.
Result<void> prepare_verification(const Load& load, const Bench& bench, const Arguments& arguments);
Result<std::string> fio_version();

// What is under test: file system, disk, queue, and what is odd about them.
boost::json::object describe(const std::string& path);

}  // namespace pegaflow::cli::ssd

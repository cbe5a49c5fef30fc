// SPDX-License-Identifier: Apache-2.0
#include "tests/torture/cuda_soak/memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>

#include "tests/torture/cuda_soak/report.hpp"

namespace pegaflow::soak {
namespace {

constexpr std::uint64_t kStaging = 8U << 20;
constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kLargestObject = 4U << 20;
constexpr auto kPatience = std::chrono::seconds(30);

std::vector<std::uint8_t>& table(int which) {
    static std::vector<std::uint8_t> tables[2];
    return tables[which];
}

const std::uint8_t* window(int which, std::uint64_t choice) { return table(which).data() + scatter(choice) % kWindows; }

std::uint64_t whole_pages(std::uint64_t length) { return (length + kPage - 1) / kPage * kPage; }

// The object's name is gone when it has been registered: nothing is left of it, whatever happens to this process. Null where
// there is no room: in containers there often is little.
Region of_object(Device& device, std::uint64_t length) {
    static std::atomic<std::uint64_t> next{0};
    const std::string name = "pega_soak_" + std::to_string(::getpid()) + "_" + std::to_string(next.fetch_add(1));
    const int fd = ::shm_open(("/" + name).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return {};
    const bool sized = ::posix_fallocate(fd, 0, static_cast<off_t>(whole_pages(length))) == 0;
    ::close(fd);
    if (!sized) return ::shm_unlink(("/" + name).c_str()), Region();
    pega_memory memory{};
    memory.size = sizeof memory;
    memory.kind = PEGA_MEMORY_HOST;
    memory.source = PEGA_SOURCE_SHM;
    memory.length = length;
    memory.handle = name.data();
    memory.handle_length = name.size();
    auto region = device.register_memory(memory);
    ::shm_unlink(("/" + name).c_str());
    return need(std::move(region), "registering a shared memory object");
}

}  // namespace

void make_noise(std::uint64_t largest) {
    for (std::uint64_t which = 0; which < 2; ++which) {
        std::vector<std::uint8_t>& bytes = table(static_cast<int>(which));
        bytes.resize(largest + kWindows);
        for (std::uint64_t i = 0; i + 8 <= bytes.size(); i += 8) {
            const std::uint64_t value = scatter(i + (which << 40));
            std::memcpy(bytes.data() + i, &value, 8);
        }
    }
}

const std::uint8_t* source_window(std::uint64_t choice) { return window(0, choice); }
const std::uint8_t* poison_window(std::uint64_t choice) { return window(1, choice); }

Checker::Checker(Device& device)
    : device_(device),
      staging_(need(device.allocate(PEGA_MEMORY_HOST, kStaging), "memory to look through")),
      channel_(need(device.open_channel(), "a channel to look through")) {}

void Checker::move(const Region& region, std::uint64_t offset, std::uint64_t length, bool to_gpu) {
    Transfer transfer;
    transfer.flat(region, staging_).range(offset, 0, length);
    if (to_gpu) transfer.read();
    const Completion end = need(channel_.submit_wait(transfer), "a copy to look at memory");
    auto moved = end.wait_for(kPatience);
    // A transfer that never ends keeps its memory for ever: nothing can be freed any more.
    if (!end.done()) {
        std::fprintf(stderr, "cuda_soak: FAILED: a plain copy has not ended for %d s\n", static_cast<int>(kPatience.count()));
        std::_Exit(1);
    }
    if (need(std::move(moved), "a copy to look at memory") != length) throw Trouble{"a copy to look at memory fell short"};
}

void Checker::put(const Region& region, const std::uint8_t* bytes, std::uint64_t length) {
    for (std::uint64_t done = 0; done < length; done += kStaging) {
        const std::uint64_t part = std::min(kStaging, length - done);
        std::memcpy(staging_.address(), bytes + done, part);
        move(region, done, part, true);
    }
}

void Checker::get(const Region& region, std::uint8_t* out, std::uint64_t length) {
    for (std::uint64_t done = 0; done < length; done += kStaging) {
        const std::uint64_t part = std::min(kStaging, length - done);
        move(region, done, part, false);
        std::memcpy(out + done, staging_.address(), part);
    }
}

std::unique_ptr<Buffer> Buffer::gpu(Device& device, Checker& checker, std::uint64_t length) {
    std::unique_ptr<Buffer> out(new Buffer(Place::kGpu, "GPU memory"));
    out->checker_ = &checker;
    out->region_ = need(device.allocate(PEGA_MEMORY_GPU, length), "GPU memory");
    out->origin_ = need(checker.device().register_address(out->region_.address(), length, PEGA_MEMORY_GPU),
                        "registering GPU memory by its address");
    return out;
}

std::unique_ptr<Buffer> Buffer::host(Device& device, std::uint64_t length, Random& random) {
    static constexpr const char* kSorts[] = {"pinned memory", "shared pinned memory", "a shared memory object", "an address"};
    std::uint64_t way = random.below(4);
    Region object;
    if (way == 2 && length <= kLargestObject) object = of_object(device, length);
    if (way == 2 && !object) way = 3;
    std::unique_ptr<Buffer> out(new Buffer(Place::kHost, kSorts[way]));
    if (way < 2) {
        out->region_ = need(device.allocate(PEGA_MEMORY_HOST, length, way == 1 ? PEGA_REGION_SHARED : 0), kSorts[way]);
    } else if (way == 2) {
        out->region_ = std::move(object);
    } else {
        out->mapped_length_ = whole_pages(length);
        out->mapped_ =
            ::mmap(nullptr, out->mapped_length_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (out->mapped_ == MAP_FAILED) throw Trouble{"no memory"};
        out->region_ = need(device.register_address(out->mapped_, length), "registering host memory by its address");
    }
    return out;
}

std::unique_ptr<Buffer> Buffer::peer(Device& device, Checker& checker, std::uint64_t length) {
    std::unique_ptr<Buffer> out(new Buffer(Place::kPeer, "memory of another device"));
    out->checker_ = &checker;
    out->origin_ = need(checker.device().allocate(PEGA_MEMORY_GPU, length), "GPU memory");
    auto imported = device.import_region(need(out->origin_.export_descriptor(), "exporting GPU memory"));
    if (!imported && imported.error().code == Code::kUnsupported) return nullptr;
    out->region_ = need(std::move(imported), "importing GPU memory of another device");
    return out;
}

std::unique_ptr<Buffer> Buffer::foreign(Device& device, std::span<const std::byte> descriptor, const std::uint8_t* contents) {
    std::unique_ptr<Buffer> out(new Buffer(Place::kPeer, "memory of another process"));
    out->region_ = need(device.import_region(descriptor), "importing memory of another process");
    if (out->region_.kind() == PEGA_MEMORY_HOST) out->place_ = Place::kHost;
    out->contents_ = contents;
    return out;
}

Buffer::~Buffer() {
    const bool ours = place_ == Place::kGpu;
    (ours ? origin_ : region_) = {};  // what is only borrowed goes before what owns it
    (ours ? region_ : origin_) = {};
    if (mapped_ != nullptr && mapped_ != MAP_FAILED) ::munmap(mapped_, mapped_length_);
}

void Buffer::fill(const std::uint8_t* window) {
    if (place_ == Place::kHost) {
        std::memcpy(region_.address(), window, length());
    } else {
        checker_->put(origin_, window, length());
    }
    contents_ = window;
}

const std::uint8_t* Buffer::look(std::vector<std::uint8_t>& scratch) {
    if (place_ == Place::kHost) return static_cast<const std::uint8_t*>(region_.address());
    if (scratch.size() < length()) scratch.resize(length());
    checker_->get(origin_, scratch.data(), length());
    return scratch.data();
}

}  // namespace pegaflow::soak

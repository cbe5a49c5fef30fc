// SPDX-License-Identifier: Apache-2.0
#include "tests/torture/cuda_soak/driver.hpp"

#include <dlfcn.h>

#include <cstddef>
#include <cstdlib>
#include <thread>

namespace pegaflow::soak {
namespace {

constexpr unsigned kNonBlocking = 1;  // CU_STREAM_NON_BLOCKING

// What cuda.h declares, without the header: the soak is built where there is no SDK.
struct Functions {
    int (*init)(unsigned) = nullptr;
    int (*driver_version)(int*) = nullptr;
    int (*device)(int*, int) = nullptr;
    int (*device_name)(char*, int, int) = nullptr;
    int (*retain)(void**, int) = nullptr;
    int (*release)(int) = nullptr;
    int (*push)(void*) = nullptr;
    int (*pop)(void**) = nullptr;
    int (*memory)(std::size_t*, std::size_t*) = nullptr;
    int (*stream)(void**, unsigned, int) = nullptr;
    int (*end_stream)(void*) = nullptr;
    int (*wait)(void*) = nullptr;
    int (*call_host)(void*, void (*)(void*), void*) = nullptr;
    bool usable = false;
};

Functions load() {
    Functions out;
    const char* chosen = std::getenv("PEGAFLOW_LIBCUDA");
    void* library = ::dlopen(chosen != nullptr ? chosen : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return out;
    const auto find = [library](const char* name, auto& function) {
        function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(library, name));
        return function != nullptr;
    };
    out.usable = find("cuInit", out.init) && find("cuDriverGetVersion", out.driver_version) &&
                 find("cuDeviceGet", out.device) && find("cuDeviceGetName", out.device_name) &&
                 find("cuDevicePrimaryCtxRetain", out.retain) && find("cuDevicePrimaryCtxRelease_v2", out.release) &&
                 find("cuCtxPushCurrent_v2", out.push) && find("cuCtxPopCurrent_v2", out.pop) &&
                 find("cuStreamCreateWithPriority", out.stream) && find("cuStreamDestroy_v2", out.end_stream) &&
                 find("cuStreamSynchronize", out.wait);
    find("cuMemGetInfo_v2", out.memory);
    find("cuLaunchHostFunc", out.call_host);
    out.usable = out.usable && out.init(0) == 0;
    return out;
}

const Functions& cuda() {
    static const Functions functions = load();
    return functions;
}

struct Current {
    explicit Current(void* context) { cuda().push(context); }
    ~Current() {
        void* ignored = nullptr;
        cuda().pop(&ignored);
    }
};

}  // namespace

int ordinal_of(const std::string& device) {
    const std::size_t colon = device.find(':');
    return colon == std::string::npos ? 0 : std::atoi(device.c_str() + colon + 1);
}

std::unique_ptr<HeldGpu> HeldGpu::open(const std::string& device) {
    std::unique_ptr<HeldGpu> out(new HeldGpu);
    if (!cuda().usable || cuda().device(&out->device_, ordinal_of(device)) != 0) return nullptr;
    if (cuda().retain(&out->context_, out->device_) != 0) out->context_ = nullptr;
    return out->context_ != nullptr ? std::move(out) : nullptr;
}

HeldGpu::~HeldGpu() {
    if (context_ != nullptr) cuda().release(device_);
}

std::string HeldGpu::name() const {
    char text[128] = {};
    return cuda().device_name(text, sizeof text - 1, device_) == 0 ? text : "";
}

int HeldGpu::driver_version() const {
    int version = 0;
    return cuda().driver_version(&version) == 0 ? version : 0;
}

std::optional<std::uint64_t> HeldGpu::used_bytes() const {
    if (cuda().memory == nullptr) return std::nullopt;
    const Current current(context_);
    std::size_t free = 0;
    std::size_t total = 0;
    if (cuda().memory(&free, &total) != 0) return std::nullopt;
    return total - free;
}

HeldStream::HeldStream(const HeldGpu& gpu) : gpu_(gpu) {
    const Current current(gpu_.context_);
    if (cuda().stream(&stream_, kNonBlocking, 0) != 0) stream_ = nullptr;
}

HeldStream::~HeldStream() {
    if (stream_ == nullptr) return;
    let_go();
    wait();
    const Current current(gpu_.context_);
    cuda().end_stream(stream_);
}

bool HeldStream::hold(std::chrono::microseconds time) {
    time_ = time;
    return call([](void* data) {
        auto* self = static_cast<HeldStream*>(data);
        std::this_thread::sleep_for(self->time_);
        self->passed_.store(true, std::memory_order_release);
    });
}

bool HeldStream::hold() {
    held_.store(true);
    return call([](void* data) {
        auto* self = static_cast<HeldStream*>(data);
        self->held_.wait(true);
        self->passed_.store(true, std::memory_order_release);
    });
}

void HeldStream::let_go() {
    held_.store(false);
    held_.notify_all();
}

bool HeldStream::call(void (*function)(void*)) {
    if (stream_ == nullptr || cuda().call_host == nullptr) return false;
    passed_.store(false);
    const Current current(gpu_.context_);
    if (cuda().call_host(stream_, function, this) == 0) return true;
    passed_.store(true);
    return false;
}

void HeldStream::wait() {
    const Current current(gpu_.context_);
    if (stream_ != nullptr) cuda().wait(stream_);
}

}  // namespace pegaflow::soak

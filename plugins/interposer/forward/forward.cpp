// SPDX-License-Identifier: Apache-2.0
#include "forward.hpp"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <vector>

#include "device.hpp"

pega_device::~pega_device() {
    if (epoll_fd >= 0) ::close(epoll_fd);
    if (event_fd >= 0) ::close(event_fd);
    if (timer_fd >= 0) ::close(timer_fd);
}

void pega_device::wake() const {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(event_fd, &one, sizeof one);
}

namespace interposer {
namespace {

// The devices that are open in this process.
class Opened {
public:
    void add(const pega_device* device) {
        const std::lock_guard lock(mutex_);
        devices_.push_back(device);
    }
    void remove(const pega_device* device) {
        const std::lock_guard lock(mutex_);
        std::erase(devices_, device);
    }
    // What their back ends say to a native code; named where they say different things.
    std::string words_for(std::int32_t code) {
        const std::lock_guard lock(mutex_);
        std::vector<std::pair<std::string, std::string>> said;
        for (const pega_device* device : devices_) {
            const char* text = device->inner.backend->error_text(code);
            const auto same = [&](const auto& other) { return other.second == text; };
            if (text != nullptr && *text != '\0' && std::none_of(said.begin(), said.end(), same))
                said.emplace_back(device->inner_name, text);
        }
        if (said.size() == 1) return said.front().second;
        std::string all;
        for (const auto& [name, text] : said) all += (all.empty() ? "" : "; or ") + name + ": " + text;
        return all;
    }

private:
    std::mutex mutex_;
    std::vector<const pega_device*> devices_;  // guarded by mutex_
};

Opened& opened() {
    static Opened instance;
    return instance;
}

InnerTables find_inner(const pega_host* host, const pega_option* options, std::uint32_t count,
                       std::vector<pega_option>& inner_options, std::string& why) {
    InnerTables out;
    const char* name = pegaflow::backend::option(options, count, "inner", nullptr);
    const auto* modules = static_cast<const pega_host_modules*>(host->extension(host->context, PEGA_HOST_MODULES));
    if (name == nullptr || modules == nullptr) {
        why = name == nullptr ? "needs the option inner=<back end>" : "needs a host that finds other modules";
        return out;
    }
    const pega_entry* entry = modules->find(host->context, name);
    if (entry == nullptr) {
        why = std::string("there is no back end ") + name;
        return out;
    }
    for (std::uint32_t i = 0; i < count; ++i) {
        if (std::strncmp(options[i].key, "inner.", 6) == 0) inner_options.push_back({options[i].key + 6, options[i].value});
    }
    out.backend = static_cast<const pega_backend_table*>(entry->get(PEGA_BACKEND_TABLE));
    out.region = static_cast<const pega_region_table*>(entry->get(PEGA_REGION_TABLE));
    out.channel = static_cast<const pega_channel_table*>(entry->get(PEGA_CHANNEL_TABLE));
    out.completion = static_cast<const pega_completion_table*>(entry->get(PEGA_COMPLETION_TABLE));
    if (out.backend == nullptr || out.region == nullptr || out.channel == nullptr || out.completion == nullptr) {
        why = std::string(name) + " is no back end";
        out.backend = nullptr;
    }
    return out;
}

// Back end table.

pega_status probe(const pega_host* host, const pega_option* options, std::uint32_t count, pega_device_info* infos,
                  std::uint32_t capacity, std::uint32_t* found, char* reason, std::uint64_t reason_capacity) {
    std::vector<pega_option> inner_options;
    std::string why;
    const InnerTables inner = find_inner(host, options, count, inner_options, why);
    if (inner.backend == nullptr) {
        if (reason != nullptr && reason_capacity > 0) {
            std::strncpy(reason, why.c_str(), reason_capacity - 1);
            reason[reason_capacity - 1] = '\0';
        }
        return PEGA_UNSUPPORTED;
    }
    return inner.backend->probe(host, inner_options.data(), static_cast<std::uint32_t>(inner_options.size()), infos, capacity,
                                found, reason, reason_capacity);
}

pega_status open_device(const pega_host* host, const pega_open_params* params, pega_device** out) {
    if (host == nullptr || params == nullptr || out == nullptr || !pegaflow::backend::whole(*params)) return PEGA_INVALID;
    std::vector<pega_option> inner_options;
    std::string why;
    auto device = std::make_unique<pega_device>();
    device->host = host;
    device->inner = find_inner(host, params->options, params->option_count, inner_options, why);
    if (device->inner.backend == nullptr) return PEGA_UNSUPPORTED;
    device->inner_name = pegaflow::backend::option(params->options, params->option_count, "inner", "");
    device->hooks = make_hooks(host, params->options, params->option_count);
    if (!device->hooks) return PEGA_INVALID;
    pega_open_params inner = pegaflow::backend::copy_in(*params);
    inner.options = inner_options.data();
    inner.option_count = static_cast<std::uint32_t>(inner_options.size());
    const pega_status status = device->inner.backend->open(host, &inner, &device->device);
    if (status != PEGA_OK) return status;
    device->event_fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    device->epoll_fd = ::epoll_create1(EPOLL_CLOEXEC);
    device->timer_fd = ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    for (const int fd : {device->event_fd, device->timer_fd, device->inner.completion->wait_fd(device->device)}) {
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.fd = fd;
        if (::epoll_ctl(device->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
            device->inner.backend->close(device->device);
            return PEGA_NO_MEMORY;
        }
    }
    if (device->hooks->corrupts()) {
        if (const pega_status able = device->spoiler.open(*device); able != PEGA_OK) {
            device->inner.backend->close(device->device);
            return able;
        }
    }
    opened().add(device.get());
    *out = device.release();
    return PEGA_OK;
}

void close_device(pega_device* device) {
    if (device == nullptr) return;
    opened().remove(device);
    device->spoiler.close(*device);
    device->inner.backend->close(device->device);
    delete device;
}

pega_status capabilities(pega_device* device, pega_capabilities* out) {
    return device == nullptr ? PEGA_INVALID : device->inner.backend->capabilities(device->device, out);
}

pega_status address(pega_device* device, void* bytes, std::uint64_t capacity, std::uint64_t* length) {
    return device == nullptr ? PEGA_INVALID : device->inner.backend->address(device->device, bytes, capacity, length);
}

// A code is the inner back end's, in its words. One module may wrap several, and the code does not say whose it is.
const char* error_text(std::int32_t code) {
    static thread_local std::string text;
    text = opened().words_for(code);
    const char* own = ::strerrordesc_np(code);  // ECANCELED and ETIMEDOUT of what ended here
    if (text.empty() && own != nullptr) text = own;
    return text.c_str();
}

constexpr pega_backend_table kBackendTable = {
    sizeof(pega_backend_table), 0, &probe, &open_device, &close_device, &capabilities, &address, &extension, &error_text};

}  // namespace

const void* table(const char* id) {
    if (std::strcmp(id, PEGA_BACKEND_TABLE) == 0) return &kBackendTable;
    if (std::strcmp(id, PEGA_REGION_TABLE) == 0) return &kRegionTable;
    if (std::strcmp(id, PEGA_CHANNEL_TABLE) == 0) return &kChannelTable;
    if (std::strcmp(id, PEGA_COMPLETION_TABLE) == 0) return &kCompletionTable;
    return nullptr;
}

}  // namespace interposer

const pega_entry pegaflow_entry = {sizeof(pega_entry), PEGA_ABI_MAJOR, PEGA_ABI_MINOR,
                                   interposer::kName,  "1.0",          &interposer::table};

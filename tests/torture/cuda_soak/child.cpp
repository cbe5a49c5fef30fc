// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstring>
#include <iostream>

#include "tests/torture/cuda_soak/flight.hpp"
#include "tests/torture/cuda_soak/peers.hpp"
#include "tests/unit/backends/cuda/peer_process.hpp"

namespace pegaflow::soak {
namespace {

constexpr auto kPatience = std::chrono::seconds(30);
constexpr int kFailed = 10, kNoParent = 11;

class Child {
public:
    Child(const std::string& device, const std::string& path, std::uint64_t seed, std::uint32_t value);
    void meet();
    void round(std::uint64_t number);
    bool failed() const { return report_.failed(); }

private:
    void send(std::span<const std::byte> bytes);
    std::vector<std::byte> receive();

    const std::uint64_t seed_;
    const std::uint32_t value_;
    Report report_;
    Where where_;
    Random random_;
    std::unique_ptr<Fabric> fabric_, looking_;
    Device& device_;
    Checker checker_;
    std::unique_ptr<Buffer> inbox_, outbox_, incoming_, outgoing_, their_inbox_, their_outbox_;
    Region host_box_;
    Channel channel_;
    Flight writing_, reading_;
    std::vector<std::uint8_t> image_, scratch_;
};

Child::Child(const std::string& device, const std::string& path, std::uint64_t seed, std::uint32_t value)
    : seed_(seed),
      value_(value),
      report_(seed, false),
      where_{fmt::format("another process on {} by {}", device, path), 0},
      random_{seed},
      fabric_(open_fabric(path, random_)),
      looking_(open_fabric("loop", random_)),
      device_(*need(fabric_->device(device), "opening a device")),
      checker_(*need(looking_->device(device), "opening a device")) {
    for (auto* buffer : {&inbox_, &outbox_, &incoming_, &outgoing_}) *buffer = Buffer::gpu(device_, checker_, kBoxBytes);
    outbox_->fill(box_window(seed_, Box::kChildOut));
    host_box_ = need(device_.allocate(PEGA_MEMORY_HOST, kHostBoxBytes, PEGA_REGION_SHARED), "shared memory");
    std::memcpy(host_box_.address(), box_window(seed_, Box::kChildHost), kHostBoxBytes);
}

void Child::send(std::span<const std::byte> bytes) {
    if (!send_message(kRoleSocket, bytes)) throw Trouble{"the parent is gone"};
}

std::vector<std::byte> Child::receive() {
    auto bytes = receive_message(kRoleSocket);
    if (!bytes) throw Trouble{"the parent is gone"};
    return std::move(*bytes);
}

void Child::meet() {
    send(need(device_.address(), "the device's address"));
    for (const Region* region : {&inbox_->region(), &outbox_->region(), static_cast<const Region*>(&host_box_)})
        send(need(region->export_descriptor(), "exporting a region"));
    const auto address = receive();
    const auto inbox = receive();
    const auto outbox = receive();
    their_inbox_ = Buffer::foreign(device_, inbox, nullptr);
    their_outbox_ = Buffer::foreign(device_, outbox, box_window(seed_, Box::kParentOut));
    channel_ = need(device_.open_channel(address), "a channel to the parent");
}

void Child::round(std::uint64_t number) {
    where_.iteration = number;
    outgoing_->fill(box_window(seed_, Box::kChildRound, number));
    writing_.choose_all(random_, *outgoing_, *their_inbox_);
    writing_.transfer.notify(value_);
    const std::uint8_t* before = poison_window(random_());
    incoming_->fill(before);
    reading_.choose(random_, {their_outbox_.get()}, *incoming_, 0, kBoxBytes, random_.spread(1, 2048));
    writing_.submit(channel_, report_);
    reading_.submit(channel_, report_);
    reading_.wait(report_, where_);
    writing_.wait(report_, where_);
    Flight* const flights[] = {&reading_};
    check_target(*incoming_, before, flights, image_, scratch_, report_, where_);
    need(device_.wait_notify(kAnswered, 1, kPatience), "waiting for the parent's answer");
    check_target(*inbox_, box_window(seed_, Box::kParentRound, number), {}, image_, scratch_, report_, where_);
}

}  // namespace

int run_child(const std::string& device, const std::string& path, std::uint64_t seed, std::uint32_t value) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() == 1) return kNoParent;
    make_noise(kBoxBytes);
    try {
        Child child(device, path, seed, value);
        child.meet();
        for (std::uint64_t number = 0; !child.failed(); ++number) child.round(number);
        std::_Exit(kFailed);
    } catch (const Trouble& trouble) {
        std::cerr << "cuda_soak: another process on " << device << " by " << path << ", seed " << seed << ": " << trouble.text
                  << std::endl;
        std::_Exit(kFailed);
    }
}

}  // namespace pegaflow::soak

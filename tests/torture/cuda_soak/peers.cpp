// SPDX-License-Identifier: Apache-2.0
#include "tests/torture/cuda_soak/peers.hpp"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <condition_variable>

#include "tests/torture/cuda_soak/flight.hpp"
#include "tests/unit/backends/cuda/peer_process.hpp"

namespace pegaflow::soak {
namespace {

using std::chrono::milliseconds;

constexpr auto kPatience = std::chrono::seconds(30);
constexpr std::uint64_t kReads = 3;

// Kills a process after a while, or at once when its scope ends.
class Killer {
public:
    Killer(OtherProcess& victim, milliseconds after) : when_(Clock::now() + after), thread_([this, &victim] { run(victim); }) {}
    ~Killer() { join(); }
    const std::atomic<bool>& killed() const noexcept { return killed_; }
    // Not later than that.
    void hasten(milliseconds after) {
        const std::lock_guard lock(mutex_);
        when_ = std::min(when_, Clock::now() + after);
        changed_.notify_all();
    }
    // Kills now, unless that was done. The code with which the process had ended before, or -1.
    int join() {
        hasten(milliseconds(0));
        if (thread_.joinable()) thread_.join();
        return code_;
    }

private:
    using Clock = std::chrono::steady_clock;
    void run(OtherProcess& victim) {
        std::unique_lock lock(mutex_);
        while (Clock::now() < when_) changed_.wait_until(lock, Clock::time_point(when_));
        killed_ = true;  // before it is: what it causes is seen after this
        code_ = victim.kill();
    }
    std::mutex mutex_;
    std::condition_variable changed_;
    Clock::time_point when_;  // guarded by mutex_
    int code_ = -1;
    std::atomic<bool> killed_{false};
    std::thread thread_;
};

class Parent {
public:
    Parent(Phase& phase, const std::string& device, std::uint64_t number);
    void run();

private:
    struct Guest;
    void open(Random& random);
    void close();
    void one_child(Random& random);
    void meet(Guest& guest);
    void round(Guest& guest, Random& random);
    void read(Guest& guest, Random& random);
    bool answer(Guest& guest, Random& random);
    void check_inbox_after(const Guest& guest);
    void expect_lost(Guest& guest);
    std::vector<std::byte> receive(const Guest& guest);

    Phase& phase_;
    Report& report_;
    Watch::Pulse pulse_;
    Where where_;
    const std::string gpu_;
    const std::uint64_t number_;
    std::uint64_t children_ = 0;
    std::vector<std::string> reachable_;  // GPUs whose memory this one may address
    Checker checker_;
    std::unique_ptr<Fabric> fabric_;
    Device* device_ = nullptr;
    std::unique_ptr<Buffer> inbox_, outbox_, incoming_, outgoing_;
    std::vector<std::uint8_t> image_, scratch_;
};

// One child, what is imported from it, and what is in flight with it.
struct Parent::Guest {
    std::uint64_t seed = 0;
    std::uint32_t value = 0;
    OtherProcess process;
    Killer killer;
    std::unique_ptr<Buffer> inbox, outbox, host_box;
    Channel channel;
    std::uint64_t rounds = 0;                    // whose bytes have come
    const std::uint8_t* inbox_before = nullptr;  // what ours held before the round under way
    Flight reads[kReads], writing;
    Guest(std::uint64_t of, std::uint32_t number, const std::vector<std::string>& arguments, milliseconds lives)
        : seed(of), value(number), process(arguments), killer(process, lives) {}
};

Parent::Parent(Phase& phase, const std::string& device, std::uint64_t number)
    : phase_(phase),
      report_(*phase.report),
      pulse_(*phase.watch, fmt::format("{} {} with other processes", phase.name, device)),
      where_(pulse_.where()),
      gpu_(device),
      number_(number),
      checker_(*need(phase.looking->device(device), "opening a device to look through")) {
    for (const std::string& other : phase.devices) {
        Checker there(*need(phase.looking->device(other), "opening a device to look through"));
        if (other == device || Buffer::peer(checker_.device(), there, 1U << 20) != nullptr) reachable_.push_back(other);
    }
    if (reachable_.size() != phase.devices.size())
        report_.skip("transfers between processes on two GPUs: they have no peer access to each other");
}

void Parent::open(Random& random) {
    fabric_ = open_fabric(random.pick(all_paths()), random);
    device_ = need(fabric_->device(gpu_), "opening a device");
    for (auto* buffer : {&inbox_, &outbox_, &incoming_, &outgoing_}) *buffer = Buffer::gpu(*device_, checker_, kBoxBytes);
}

void Parent::close() {
    for (auto* buffer : {&inbox_, &outbox_, &incoming_, &outgoing_}) buffer->reset();
    fabric_.reset();
}

void Parent::run() {
    do {
        Random random{report_.seed(), phase_.id, number_, ++children_};
        where_.iteration = children_;
        pulse_.beat(children_, "opening a device");
        if (fabric_ == nullptr) open(random);
        one_child(random);
        if (random.chance(40)) close();
    } while (!phase_.over());
    pulse_.beat(children_, "closing a device");
    close();
}

std::vector<std::byte> Parent::receive(const Guest& guest) {
    auto bytes = receive_message(guest.process.socket());
    if (!bytes) throw Trouble{"another process did not say what it offers"};
    return std::move(*bytes);
}

void Parent::meet(Guest& guest) {
    // Longer than a GPU's driver takes to start, with many GPUs, shorter than the watch waits.
    const timeval limit{60, 0};
    ::setsockopt(guest.process.socket(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    const auto address = receive(guest);
    const auto inbox = receive(guest);
    const auto outbox = receive(guest);
    const auto host_box = receive(guest);
    guest.inbox = Buffer::foreign(*device_, inbox, nullptr);
    guest.outbox = Buffer::foreign(*device_, outbox, box_window(guest.seed, Box::kChildOut));
    guest.host_box = Buffer::foreign(*device_, host_box, box_window(guest.seed, Box::kChildHost));
    guest.channel = need(device_->open_channel(address), "a channel to another process");
    const std::vector<std::byte> own = need(device_->address(), "the device's address");
    const bool told = send_message(guest.process.socket(), own) &&
                      send_message(guest.process.socket(), need(inbox_->region().export_descriptor(), "exporting")) &&
                      send_message(guest.process.socket(), need(outbox_->region().export_descriptor(), "exporting"));
    if (!told) throw Trouble{"another process is gone"};
}

void Parent::one_child(Random& random) {
    const std::uint64_t seed = random() >> 1;
    const auto value = static_cast<std::uint32_t>(1000 + children_);
    const std::string device = random.pick(reachable_);
    const std::string path = random.pick(all_paths());
    // Most die in the midst of transfers, some while they start.
    const milliseconds lives(random.chance(10) ? random.below(400) : 0);
    where_.thread = fmt::format("{}, other on {} by {}", pulse_.where().thread, device, path);
    pulse_.beat(children_, "starting another process");
    outbox_->fill(box_window(seed, Box::kParentOut));
    const std::uint8_t* before = poison_window(seed);
    inbox_->fill(before);
    Guest guest(seed, value, {"--child", device, path, std::to_string(seed), std::to_string(value)},
                lives.count() != 0 ? lives : milliseconds(120'000));
    guest.inbox_before = before;
    bool met = false;
    try {
        meet(guest);
        met = true;
    } catch (const Trouble&) {
        if (!guest.killer.killed()) throw;
    }
    if (met) {
        pulse_.beat(children_, "a round with another process");
        guest.killer.hasten(milliseconds(random.spread(1, 700)));
        while (!guest.killer.killed()) {
            pulse_.beat(children_, "a round with another process");
            round(guest, random);
        }
    }
    pulse_.beat(children_, "after another process was killed");
    if (const int code = guest.killer.join(); code != -1)
        report_.fail(where_, fmt::format("another process ended by itself, with {}", code));
    report_.peers_killed.fetch_add(1, std::memory_order_relaxed);
    check_inbox_after(guest);
    if (met) expect_lost(guest);
}

void Parent::read(Guest& guest, Random& random) {
    const std::uint8_t* before = poison_window(random());
    incoming_->fill(before);
    const std::uint64_t count = 1 + random.below(kReads);
    Flight* flights[kReads] = {};
    for (std::uint64_t i = 0; i < count; ++i) {
        Flight& flight = *(flights[i] = &guest.reads[i]);
        std::vector<Buffer*> from = {guest.outbox.get()};
        if (random.chance(30)) from.push_back(guest.host_box.get());
        flight.choose(random, from, *incoming_, i * (kBoxBytes / count), kBoxBytes / count, random.spread(1, 2048));
        flight.kind = Kind::kPeerRead;
        flight.peer_killed = &guest.killer.killed();
        if (random.chance(30)) flight.transfer.notify(kUnread);
        flight.submit(guest.channel, report_);
    }
    answer(guest, random);
    for (std::uint64_t i = 0; i < count; ++i) flights[i]->wait(report_, where_);
    guest.writing.wait(report_, where_);
    check_target(*incoming_, before, {flights, count}, image_, scratch_, report_, where_);
}

// True when the child had said that its bytes are here.
bool Parent::answer(Guest& guest, Random& random) {
    if (!device_->wait_notify(guest.value, 1, milliseconds(20))) return false;
    const std::uint8_t* expected = box_window(guest.seed, Box::kChildRound, guest.rounds);
    check_target(*inbox_, expected, {}, image_, scratch_, report_, where_);
    guest.inbox_before = expected;
    outgoing_->fill(box_window(guest.seed, Box::kParentRound, guest.rounds));
    guest.writing.choose_all(random, *outgoing_, *guest.inbox);
    guest.writing.kind = Kind::kPeerWrite;
    guest.writing.peer_killed = &guest.killer.killed();
    guest.writing.transfer.notify(kAnswered);
    guest.writing.submit(guest.channel, report_);
    ++guest.rounds;
    report_.peer_rounds.fetch_add(1, std::memory_order_relaxed);
    return true;
}

void Parent::round(Guest& guest, Random& random) {
    if (random.chance(70)) return read(guest, random);
    answer(guest, random);
    guest.writing.wait(report_, where_);
}

// Its last round may have been under way: each byte is of that one or of the one before.
void Parent::check_inbox_after(const Guest& guest) {
    const std::uint8_t* found = inbox_->look(scratch_);
    report_.bytes_verified.fetch_add(kBoxBytes, std::memory_order_relaxed);
    inbox_->forget_contents();
    if (either(found, guest.inbox_before, box_window(guest.seed, Box::kChildRound, guest.rounds), kBoxBytes)) return;
    report_.wrong_bytes.fetch_add(1, std::memory_order_relaxed);
    report_.fail(where_, "a killed process left bytes that it never wrote");
}

void Parent::expect_lost(Guest& guest) {
    const auto limit = std::chrono::steady_clock::now() + kPatience;
    while (guest.channel.state() == PEGA_OK && std::chrono::steady_clock::now() < limit)
        std::this_thread::sleep_for(milliseconds(1));
    Transfer transfer;
    transfer.flat(outgoing_->region(), incoming_->region()).range(0, 0, 16);
    const auto refused = guest.channel.submit(transfer);
    if (guest.channel.state() != PEGA_PEER_LOST || refused || refused.error().code != Code::kPeerLost)
        report_.fail(where_, "the channel to a killed process is not lost");
    report_.peer_lost.fetch_add(1, std::memory_order_relaxed);
    need(guest.channel.close(kPatience), "closing a channel to a killed process");
}

}  // namespace

const std::uint8_t* box_window(std::uint64_t seed, Box box, std::uint64_t round) {
    return source_window(scatter(seed + static_cast<std::uint64_t>(box)) + round);
}

void run_peers(Phase& phase, const std::string& device, std::uint64_t number) {
    try {
        Parent(phase, device, number).run();
    } catch (const Trouble& trouble) {
        phase.report->fail({fmt::format("{} {} with other processes", phase.name, device), 0}, trouble.text);
    }
}

}  // namespace pegaflow::soak

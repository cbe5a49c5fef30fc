// SPDX-License-Identifier: Apache-2.0
#include "tests/torture/cuda_soak/worker.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "tests/torture/cuda_soak/device_event.hpp"

namespace pegaflow::soak {
namespace {

using std::chrono::microseconds;

constexpr std::uint64_t kLeast = 320U << 10;  // of a buffer
constexpr std::uint64_t kMost = 12U << 20;    // of most buffers
constexpr std::size_t kMostFlights = 5;
constexpr std::uint64_t kMostPieces = 8192;
constexpr auto kPatience = std::chrono::seconds(30);

// Now and then so many that they are queued in many parts.
std::uint64_t most_pieces(Random& random) { return random.chance(20) ? 4 * kMostPieces : kMostPieces; }

class Worker {
public:
    Worker(Phase& phase, const std::string& device, std::uint64_t number);
    void run();

private:
    void open_session(Random& random);
    void close_session();
    void round(Random& random);
    void renew_a_buffer(Random& random);
    std::unique_ptr<Buffer> make(Place place, std::uint64_t length, Random& random);
    void choose_targets(Random& random);
    std::vector<Buffer*> sources_for(const Buffer& target) const;
    void fill(Random& random);
    void choose_flights(Random& random);
    void hold_up(Random& random);
    void launch(Random& random);
    void close_a_channel(Random& random);
    void land(Random& random);
    Channel open_channel(Random& random);
    bool is_target(const Buffer* buffer) const { return std::find(targets_.begin(), targets_.end(), buffer) != targets_.end(); }
    std::span<Flight* const> flights() const { return {flying_.data(), flying_.size()}; }

    Phase& phase_;
    Report& report_;
    Watch::Pulse pulse_;
    Where where_;
    const std::string gpu_;
    const std::uint64_t number_;
    std::uint64_t iteration_ = 0;
    // In the order in which they need each other.
    Checker checker_;
    std::unique_ptr<Checker> other_checker_;
    std::unique_ptr<Fabric> own_;
    Device* device_ = nullptr;
    std::vector<std::unique_ptr<Buffer>> buffers_;
    HeldStream stream_;
    DeviceEvent waited_, recorded_;
    std::vector<Channel> channels_;
    std::vector<std::unique_ptr<Flight>> hangar_;
    Canceller canceller_;
    // Of the round under way.
    std::vector<Buffer*> targets_;
    std::vector<const std::uint8_t*> windows_;  // what each target began as
    std::vector<Flight*> flying_;
    Flight *waits_ = nullptr, *records_ = nullptr;
    std::vector<std::uint8_t> image_, scratch_;
};

Device& looking_device(Phase& phase, const std::string& device) {
    return *need(phase.looking->device(device), "opening a device to look through");
}

Worker::Worker(Phase& phase, const std::string& device, std::uint64_t number)
    : phase_(phase),
      report_(*phase.report),
      pulse_(*phase.watch, fmt::format("{} {} worker {}", phase.name, device, number)),
      where_(pulse_.where()),
      gpu_(device),
      number_(number),
      checker_(looking_device(phase, device)),
      stream_(*phase.gpus.at(device)),
      canceller_(*phase.report) {
    for (const std::string& other : phase.devices) {
        if (other != device) other_checker_ = std::make_unique<Checker>(looking_device(phase, other));
    }
    for (std::size_t i = 0; i < kMostFlights; ++i) hangar_.push_back(std::make_unique<Flight>());
}

void Worker::run() {
    while (!phase_.over()) {
        Random random{report_.seed(), phase_.id, number_, iteration_, 1};
        open_session(random);
        for (std::uint64_t left = 8 + random.below(33); left != 0 && !phase_.over(); --left) {
            Random choices{report_.seed(), phase_.id, number_, ++iteration_};
            where_.iteration = iteration_;
            pulse_.beat(iteration_, "a round of transfers");
            round(choices);
        }
        pulse_.beat(iteration_, "closing a session");
        close_session();
    }
}

void Worker::open_session(Random& random) {
    report_.sessions.fetch_add(1, std::memory_order_relaxed);
    const std::uint64_t path = random.below(all_paths().size());
    const bool shared = random.chance(65);
    if (!shared) own_ = open_fabric(all_paths()[path], random);
    device_ = need((shared ? *phase_.pool[path] : *own_).device(gpu_), "opening a device");
    where_.thread = fmt::format("{}, path {}{}", pulse_.where().thread, all_paths()[path], shared ? ", shared device" : "");
    const bool large = random.chance(8);
    for (const Place place : {Place::kGpu, Place::kHost, Place::kGpu, Place::kHost, Place::kPeer}) {
        const bool whole = large && buffers_.size() < 2;
        const std::uint64_t length =
            random.spread(kLeast, large ? kMost / 4 : kMost) - (random.chance(50) ? random.below(4096) : 0);
        if (auto made = make(place, whole ? kLargest : length, random)) buffers_.push_back(std::move(made));
    }
    for (std::uint64_t count = 1 + random.below(3); count != 0; --count) channels_.push_back(open_channel(random));
}

void Worker::close_session() {
    waited_.reset();
    recorded_.reset();
    for (auto& flight : hangar_) flight->transfer.clear();
    channels_.clear();
    buffers_.clear();
    device_ = nullptr;
    own_.reset();
}

Channel Worker::open_channel(Random& random) {
    static constexpr std::uint32_t kDepths[] = {0, 0, 1, 2, 8};
    return need(device_->open_channel({}, random.pick(kDepths)), "opening a channel");
}

std::unique_ptr<Buffer> Worker::make(Place place, std::uint64_t length, Random& random) {
    report_.regions.fetch_add(1, std::memory_order_relaxed);
    if (place == Place::kGpu) return Buffer::gpu(*device_, checker_, length);
    if (place == Place::kHost) return Buffer::host(*device_, length, random);
    const bool other = other_checker_ != nullptr && random.chance(75);
    auto made = Buffer::peer(*device_, other ? *other_checker_ : checker_, length);
    if (made == nullptr) {
        other_checker_.reset();  // nothing is imported from there, and nobody asks again
        report_.skip("transfers between two GPUs of one process: they have no peer access to each other");
    }
    return made;
}

void Worker::renew_a_buffer(Random& random) {
    std::unique_ptr<Buffer>& buffer = random.pick(buffers_);
    if (buffer->length() > kMost) return;  // pinning takes its time
    const Place place = buffer->place();
    const std::uint64_t length = buffer->length();
    buffer.reset();
    buffer = make(place, length, random);
    if (buffer == nullptr) std::erase(buffers_, nullptr);
}

// One or two buffers; at least one in GPU memory stays a source.
void Worker::choose_targets(Random& random) {
    targets_.clear();
    std::uint64_t gpus = 0;
    for (const auto& buffer : buffers_) gpus += buffer->place() == Place::kGpu ? 1 : 0;
    for (std::uint64_t wanted = 1 + random.below(2); targets_.size() < wanted;) {
        Buffer* buffer = random.pick(buffers_).get();
        const bool in_gpu = buffer->place() == Place::kGpu;
        if (is_target(buffer) || (in_gpu && gpus == 1)) continue;
        targets_.push_back(buffer);
        gpus -= in_gpu ? 1 : 0;
    }
}

// One side of a transfer is in memory of the device's own GPU.
std::vector<Buffer*> Worker::sources_for(const Buffer& target) const {
    std::vector<Buffer*> out;
    for (const auto& buffer : buffers_) {
        const bool fits = target.place() == Place::kGpu || buffer->place() == Place::kGpu;
        if (fits && !is_target(buffer.get())) out.push_back(buffer.get());
    }
    return out;
}

void Worker::fill(Random& random) {
    for (const auto& buffer : buffers_) {
        if (!is_target(buffer.get()) && (buffer->contents() == nullptr || random.chance(10)))
            buffer->fill(source_window(random()));
    }
    windows_.clear();
    for (Buffer* target : targets_) {
        windows_.push_back(poison_window(random()));
        target->fill(windows_.back());
    }
}

void Worker::choose_flights(Random& random) {
    std::vector<Buffer*> of;
    for (std::uint64_t count = 1 + random.below(kMostFlights); count != 0; --count) of.push_back(random.pick(targets_));
    flying_.clear();
    for (std::size_t i = 0; i < of.size(); ++i) {
        const auto parts = static_cast<std::uint64_t>(std::count(of.begin(), of.end(), of[i]));
        const auto part =
            static_cast<std::uint64_t>(std::count(of.begin(), of.begin() + static_cast<std::ptrdiff_t>(i), of[i]));
        const std::uint64_t share = of[i]->length() / parts / 16 * 16;
        const std::uint64_t length = part + 1 == parts ? of[i]->length() - part * share : share;
        Flight& flight = *hangar_[i];
        flight.choose(random, sources_for(*of[i]), *of[i], part * share, length,
                      random.chance(25) ? most_pieces(random) : random.spread(1, kMostPieces));
        if (random.chance(5)) {
            flight.transfer.deadline(std::chrono::steady_clock::now() + microseconds(random.below(3000)));
            flight.may_be_cancelled = true;
        }
        flying_.push_back(&flight);
    }
}

// One transfer waits for an event behind a stream that the host holds up, another, or the same, records one.
void Worker::hold_up(Random& random) {
    waits_ = records_ = nullptr;
    if (!random.chance(12)) return;
    records_ = random.pick(flying_);
    recorded_.make(*device_);
    records_->transfer.record_event(recorded_.get());
    stream_.wait();
    if (!stream_.hold(microseconds(random.spread(100, 10000)))) {
        report_.skip("waits for events: the driver calls no function of the host");
        return;
    }
    waits_ = random.pick(flying_);
    waited_.make(*device_);
    waited_.signal(stream_.handle());
    waits_->transfer.wait_event(waited_.get());
    report_.gates.fetch_add(1, std::memory_order_relaxed);
}

void Worker::launch(Random& random) {
    for (Flight* flight : flying_) {
        flight->submit(random.pick(channels_), report_);
        // Those that take long, or wait, are those that an end can come into the midst of.
        const bool slow = flight == waits_ || flight->shape.pieces.size() > kMostPieces / 2;
        if (!flight->submitted || !random.chance(slow ? 40 : 12)) continue;
        flight->may_be_cancelled = true;
        if (random.chance(30)) {
            if (const std::string problem = cancel(*flight, report_); !problem.empty()) throw Trouble{problem};
        } else {
            canceller_.ask(*flight, microseconds(random.spread(1, 3000)));
        }
    }
}

void Worker::close_a_channel(Random& random) {
    Channel& channel = random.pick(channels_);
    for (Flight* flight : flying_) {
        if (flight->channel == &channel) flight->may_be_cancelled = true;
    }
    canceller_.settle();
    report_.closed_in_flight.fetch_add(1, std::memory_order_relaxed);
    const std::uint64_t way = random.below(3);
    if (way == 0) channel = {};
    if (way == 1) {
        const auto closed = channel.close(microseconds(random.below(500)));
        if (!closed && closed.error().code != Code::kRetry) need(closed, "closing a channel");
        need(channel.close(kPatience), "closing a channel");
    }
    channel = open_channel(random);
}

void Worker::land(Random& random) {
    for (Flight* flight : flying_) flight->wait(report_, where_);
    canceller_.settle();
    if (waits_ != nullptr && waits_->outcome == Outcome::kMoved && !stream_.passed())
        report_.fail(where_, "a transfer did not wait for its event: " + waits_->describe());
    if (records_ != nullptr && records_->outcome == Outcome::kMoved && !recorded_.happened())
        report_.fail(where_, "a transfer ended before the event that it records: " + records_->describe());
    for (std::size_t i = 0; i < targets_.size(); ++i)
        check_target(*targets_[i], windows_[i], flights(), image_, scratch_, report_, where_);
    Buffer* other = random.pick(buffers_).get();
    if (!is_target(other) && random.chance(40)) check_untouched(*other, scratch_, report_, where_);
}

void Worker::round(Random& random) {
    if (random.chance(20)) renew_a_buffer(random);
    choose_targets(random);
    fill(random);
    choose_flights(random);
    hold_up(random);
    launch(random);
    if (random.chance(6)) close_a_channel(random);
    land(random);
}

}  // namespace

void run_worker(Phase& phase, const std::string& device, std::uint64_t number) {
    try {
        Worker(phase, device, number).run();
    } catch (const Trouble& trouble) {
        phase.report->fail({fmt::format("{} {} worker {}", phase.name, device, number), 0}, trouble.text);
    }
}

}  // namespace pegaflow::soak

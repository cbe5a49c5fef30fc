// SPDX-License-Identifier: Apache-2.0
#include "tests/torture/cuda_soak/flight.hpp"

#include <fmt/format.h>

#include <cstring>
#include <numeric>

namespace pegaflow::soak {
namespace {

constexpr auto kPatience = std::chrono::seconds(30);

Kind kind_of(const std::vector<Buffer*>& sources, const Shape& shape, const Buffer& target) {
    if (target.place() == Place::kHost) return Kind::kToHost;
    if (target.place() == Place::kPeer) return Kind::kBetweenDevices;
    bool seen[3] = {};
    for (const Piece& piece : shape.pieces) seen[static_cast<int>(sources[piece.source]->place())] = true;
    if (seen[0] + seen[1] + seen[2] > 1) return Kind::kMixed;
    if (seen[static_cast<int>(Place::kHost)]) return Kind::kToGpu;
    return seen[static_cast<int>(Place::kPeer)] ? Kind::kBetweenDevices : Kind::kWithinGpu;
}

std::string hex(const std::uint8_t* bytes, std::uint64_t length) {
    std::string out;
    for (std::uint64_t i = 0; i < std::min<std::uint64_t>(length, 16); ++i) out += fmt::format("{:02x}", bytes[i]);
    return out;
}

// Which flight was to write the byte.
std::string writer_of(std::uint64_t at, std::span<Flight* const> flights, const Buffer& target) {
    for (const Flight* flight : flights) {
        if (flight->target != &target) continue;
        for (std::size_t i = 0; i < flight->shape.pieces.size(); ++i) {
            const Piece& p = flight->shape.pieces[i];
            if (at < p.to || at - p.to >= p.length) continue;
            return fmt::format("byte {} of piece {} ({} bytes from {} of {} to {}) of {}", at - p.to, i, p.length, p.from,
                               flight->sources[p.source]->sort(), p.to, flight->describe());
        }
    }
    std::string all;
    for (const Flight* flight : flights) all += (flight->target == &target ? "; " + flight->describe() : "");
    return "beside all pieces" + all;
}

void report_difference(const Buffer& buffer, const std::uint8_t* expected, const std::uint8_t* found,
                       std::span<Flight* const> flights, Report& report, const Where& where) {
    std::uint64_t first = 0;
    std::uint64_t last = 0;
    std::uint64_t count = 0;
    for (std::uint64_t i = 0; i < buffer.length(); ++i) {
        if (expected[i] == found[i]) continue;
        if (count++ == 0) first = i;
        last = i;
    }
    report.wrong_bytes += count;
    report.fail(where, fmt::format("{} of {} bytes of {} are wrong, from {} to {}: expected {}, found {}: {}", count,
                                   buffer.length(), buffer.sort(), first, last, hex(expected + first, buffer.length() - first),
                                   hex(found + first, buffer.length() - first), writer_of(first, flights, buffer)));
}

void apply(const Flight& flight, std::uint8_t* image, const std::uint8_t* found) {
    if (flight.outcome == Outcome::kNotStarted) return;
    for (const Piece& p : flight.shape.pieces) {
        const std::uint8_t* moved = flight.sources[p.source]->contents() + p.from;
        const bool accept = flight.outcome == Outcome::kUnknown ||
                            (flight.outcome == Outcome::kEither && either(found + p.to, image + p.to, moved, p.length));
        std::memcpy(image + p.to, accept ? found + p.to : moved, p.length);
    }
}

}  // namespace

void Flight::begin(std::vector<Buffer*> from, Buffer& to, bool reads) {
    sources = std::move(from);
    target = &to;
    read = reads;
    submitted = may_be_cancelled = false;
    peer_killed = nullptr;
    outcome = Outcome::kNotStarted;
    status = "not submitted";
    ends = 0;
    landed = 0;
    marks_wrong = false;
    transfer.clear();
    transfer.on_done([this](const pega_completion&) { ends.fetch_add(1); });
}

void Flight::choose(Random& random, std::vector<Buffer*> from, Buffer& to, std::uint64_t first, std::uint64_t length,
                    std::uint64_t most_pieces) {
    begin(std::move(from), to, random.chance(50));
    choose_shape(random, {sources, &to, first, length, read}, most_pieces, transfer, shape);
    bytes = 0;
    for (const Piece& piece : shape.pieces) bytes += piece.length;
    kind = kind_of(sources, shape, to);
    transfer.priority(static_cast<std::uint32_t>(random.below(3)));
    if (shape.mark_every == 0) return;
    transfer.on_mark([this](std::uint64_t spans) {
        if (spans < landed.exchange(spans) || spans > shape.spans) marks_wrong = true;
    });
}

void Flight::choose_all(Random& random, Buffer& from, Buffer& to) {
    static constexpr std::uint64_t kPages[] = {2U << 10, 8U << 10, 64U << 10, 256U << 10, 1U << 20};
    begin({&from}, to, random.chance(50));
    const std::uint64_t page = random.pick(kPages);
    bytes = to.length();
    shape = {"pages", {{0, 0, 0, bytes}}, 1, 0};
    std::vector<std::uint64_t> places(bytes / page);
    std::iota(places.begin(), places.end(), 0);
    if (random.chance(70)) random.shuffle(places);
    const Region& local = (read ? to : from).region();
    const Region& remote = (read ? from : to).region();
    if (read) transfer.read();
    transfer.indices(places, places).span({local.handle(), remote.handle(), 0, page, 0, 0, page, 0, page, 1, 0});
}

void Flight::submit(Channel& to, Report& report) {
    channel = &to;
    report.transfers[static_cast<std::size_t>(kind)].fetch_add(1, std::memory_order_relaxed);
    auto accepted = to.submit_wait(transfer);
    submitted = static_cast<bool>(accepted);
    if (submitted) {
        end = std::move(*accepted);
        status = "in flight";
        return;
    }
    report.not_started.fetch_add(1, std::memory_order_relaxed);
    status = accepted.error().message;
    const Code code = accepted.error().code;
    const bool late = code == Code::kDeadlineExceeded && may_be_cancelled;
    const bool alone = code == Code::kPeerLost && peer_killed != nullptr && peer_killed->load();
    if (!late && !alone) throw Trouble{"a transfer was refused: " + status + ": " + describe()};
}

void Flight::wait(Report& report, const Where& where) {
    if (!submitted) return;
    const auto moved = end.wait_for(kPatience);
    if (!end.done()) {
        // Its memory can never be given back.
        report.abandon(where, fmt::format("a transfer has not ended for {} s: {}", kPatience.count(), describe()));
    }
    judge(moved, report, where);
    submitted = false;
    if (const std::uint32_t times = ends.load(); times != 1)
        report.fail(where, fmt::format("a transfer ended {} times: {}", times, describe()));
    if (marks_wrong) report.fail(where, "marks went back or beyond the spans: " + describe());
    if (landed.load() != 0) report.marks.fetch_add(1, std::memory_order_relaxed);
}

void Flight::judge(const Result<std::uint64_t>& moved, Report& report, const Where& where) {
    const bool peer_dead = peer_killed != nullptr && peer_killed->load();
    if (moved) {
        status = "ok";
        outcome = peer_dead ? Outcome::kUnknown : Outcome::kMoved;
        report.ended_well.fetch_add(1, std::memory_order_relaxed);
        report.bytes_moved.fetch_add(*moved, std::memory_order_relaxed);
        if (*moved != bytes) report.fail(where, fmt::format("{} bytes were said to have moved: {}", *moved, describe()));
        return;
    }
    status = moved.error().message;
    outcome = peer_dead ? Outcome::kUnknown : Outcome::kEither;
    if (moved.error().code == Code::kCanceled && may_be_cancelled) {
        report.cancelled.fetch_add(1, std::memory_order_relaxed);
    } else if (moved.error().code != Code::kPeerLost || !peer_dead) {
        report.fail(where, "a transfer failed: " + describe());
    }
}

std::string Flight::describe() const {
    return fmt::format("{} {} {}, {} spans, {} pieces, {} bytes, into {}: {}", name_of(kind), shape.format,
                       read ? "read" : "write", shape.spans, shape.pieces.size(), bytes, target->sort(), status);
}

bool either(const std::uint8_t* bytes, const std::uint8_t* one, const std::uint8_t* other, std::uint64_t length) {
    if (std::memcmp(bytes, one, length) == 0 || std::memcmp(bytes, other, length) == 0) return true;
    for (std::uint64_t i = 0; i < length; ++i) {
        if (bytes[i] != one[i] && bytes[i] != other[i]) return false;
    }
    return true;
}

void check_target(Buffer& target, const std::uint8_t* window, std::span<Flight* const> flights,
                  std::vector<std::uint8_t>& image, std::vector<std::uint8_t>& scratch, Report& report, const Where& where) {
    const std::uint8_t* found = target.look(scratch);
    image.assign(window, window + target.length());
    for (const Flight* flight : flights) {
        if (flight->target == &target) apply(*flight, image.data(), found);
    }
    report.bytes_verified.fetch_add(target.length(), std::memory_order_relaxed);
    target.forget_contents();
    if (std::memcmp(image.data(), found, target.length()) == 0) return;
    report_difference(target, image.data(), found, flights, report, where);
}

void check_untouched(Buffer& buffer, std::vector<std::uint8_t>& scratch, Report& report, const Where& where) {
    const std::uint8_t* found = buffer.look(scratch);
    report.bytes_verified.fetch_add(buffer.length(), std::memory_order_relaxed);
    if (std::memcmp(buffer.contents(), found, buffer.length()) == 0) return;
    report_difference(buffer, buffer.contents(), found, {}, report, where);
}

}  // namespace pegaflow::soak

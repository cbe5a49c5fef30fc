// SPDX-License-Identifier: Apache-2.0
#include "tests/torture/cuda_soak/report.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>

namespace pegaflow::soak {
namespace {

constexpr std::size_t kMostFailures = 20;

std::string quoted(const std::string& text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (static_cast<unsigned char>(c) < 0x20) {
            out += ' ';
        } else {
            out += c;
        }
    }
    return out + "\"";
}

std::string list_of(const std::vector<std::string>& texts) {
    std::string out = "[";
    for (const std::string& text : texts) out += (out.size() > 1 ? "," : "") + quoted(text);
    return out + "]";
}

}  // namespace

const char* name_of(Kind kind) {
    static constexpr const char* kNames[] = {"gpu_to_host", "host_to_gpu",      "within_gpu",      "between_devices",
                                             "mixed",       "of_other_process", "to_other_process"};
    return kNames[static_cast<std::size_t>(kind)];
}

void Report::fail(const Where& where, const std::string& text) {
    const std::string line = fmt::format("seed {}, {}, iteration {}: {}", seed_, where.thread, where.iteration, text);
    failures_.fetch_add(1);
    const std::lock_guard lock(mutex_);
    std::cerr << "cuda_soak: FAILED: " << line << std::endl;
    if (texts_.size() < kMostFailures) texts_.push_back(line);
}

void Report::abandon(const Where& where, const std::string& text) {
    fail(where, text);
    finish();
    std::_Exit(1);
}

void Report::skip(const std::string& text) {
    const std::lock_guard lock(mutex_);
    if (std::find(skips_.begin(), skips_.end(), text) != skips_.end()) return;
    std::cerr << "cuda_soak: skipped: " << text << std::endl;
    skips_.push_back(text);
}

std::uint64_t Report::all_transfers() const {
    std::uint64_t out = 0;
    for (const auto& count : transfers) out += count.load();
    return out;
}

bool Report::finish() {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    const std::lock_guard lock(mutex_);
    std::cerr << as_text(seconds) << std::flush;
    if (json_) std::cout << as_json(seconds) << std::flush;
    return !failed();
}

std::string Report::as_text(double seconds) {
    std::string out = fmt::format("cuda_soak: {} in {:.1f} s, seed {}: {} transfers (", failed() ? "FAILED" : "all right",
                                  seconds, seed_, all_transfers());
    for (std::size_t i = 0; i < transfers.size(); ++i)
        out += fmt::format("{}{} {}", i == 0 ? "" : ", ", name_of(static_cast<Kind>(i)), transfers[i].load());
    out += fmt::format("), {:.1f} GB moved, {:.1f} GB verified, {} wrong bytes\n", static_cast<double>(bytes_moved) / 1e9,
                       static_cast<double>(bytes_verified) / 1e9, wrong_bytes.load());
    out += fmt::format(
        "cuda_soak: {} cancels asked, {} too late, {} transfers cancelled, {} never started, {} channels closed in "
        "flight, {} sessions, {} regions, {} waits for an event, {} marks\n",
        cancels_asked.load(), cancels_late.load(), cancelled.load(), not_started.load(), closed_in_flight.load(),
        sessions.load(), regions.load(), gates.load(), marks.load());
    out += fmt::format("cuda_soak: {} peers killed, {} seen as lost, {} rounds with peers, {} leaks{}{}\n", peers_killed.load(),
                       peer_lost.load(), peer_rounds.load(), leaks.load(), resources.empty() ? "" : "; ", resources);
    return out;
}

std::string Report::as_json(double seconds) {
    std::string out = fmt::format("{{\"result\":\"{}\",\"seconds\":{:.1f},\"seed\":{},\"driver\":{},\"gpus\":[",
                                  failed() ? "failed" : "passed", seconds, seed_, driver);
    for (std::size_t i = 0; i < gpus.size(); ++i)
        out += fmt::format("{}{{\"device\":{},\"name\":{}}}", i == 0 ? "" : ",", quoted(gpus[i].device), quoted(gpus[i].name));
    out += fmt::format("],\"transfers\":{{\"all\":{}", all_transfers());
    for (std::size_t i = 0; i < transfers.size(); ++i)
        out += fmt::format(",\"{}\":{}", name_of(static_cast<Kind>(i)), transfers[i].load());
    out += "}";
    const std::pair<const char*, const std::atomic<std::uint64_t>&> numbers[] = {
        {"ended_well", ended_well},
        {"cancels_asked", cancels_asked},
        {"cancels_late", cancels_late},
        {"cancelled", cancelled},
        {"not_started", not_started},
        {"closed_in_flight", closed_in_flight},
        {"sessions", sessions},
        {"regions", regions},
        {"event_waits", gates},
        {"marks", marks},
        {"bytes_moved", bytes_moved},
        {"bytes_verified", bytes_verified},
        {"wrong_bytes", wrong_bytes},
        {"peers_killed", peers_killed},
        {"peer_lost", peer_lost},
        {"peer_rounds", peer_rounds},
        {"leaks", leaks},
    };
    for (const auto& [key, value] : numbers) out += fmt::format(",\"{}\":{}", key, value.load());
    out += fmt::format(",\"resources\":{},\"skipped\":{},\"failures\":{}}}\n", quoted(resources), list_of(skips_),
                       list_of(texts_));
    return out;
}

}  // namespace pegaflow::soak

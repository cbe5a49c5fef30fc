// SPDX-License-Identifier: Apache-2.0
#include "core/transport/device.hpp"

namespace pegaflow::core {

std::uint64_t InFlightTable::insert(Entry entry) {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) {
        slots_.emplace_back();
        free_.push_back(static_cast<std::uint32_t>(slots_.size() - 1));
    }
    const std::uint32_t index = free_.back();
    free_.pop_back();
    Slot& slot = slots_[index];
    slot.entry = std::move(entry);
    slot.used = true;
    return (static_cast<std::uint64_t>(slot.generation) << 32) | index;
}

InFlightTable::Slot* InFlightTable::slot_of(std::uint64_t user_data) {
    const auto index = static_cast<std::uint32_t>(user_data);
    if (index >= slots_.size()) return nullptr;
    Slot& slot = slots_[index];
    return slot.used && slot.generation == static_cast<std::uint32_t>(user_data >> 32) ? &slot : nullptr;
}

InFlightTable::Entry InFlightTable::take(std::uint64_t user_data) {
    const std::lock_guard lock(mutex_);
    Slot* slot = slot_of(user_data);
    if (slot == nullptr) return {};
    Entry entry = std::move(slot->entry);
    slot->entry = {};
    slot->used = false;
    ++slot->generation;
    free_.push_back(static_cast<std::uint32_t>(user_data));
    return entry;
}

Transfer::Impl* InFlightTable::find(std::uint64_t user_data) {
    const std::lock_guard lock(mutex_);
    Slot* slot = slot_of(user_data);
    return slot == nullptr ? nullptr : slot->entry.transfer;
}

void InFlightTable::fetch_ahead(std::span<const pega_completion> records) {
    const auto fetch = [](const void* object, std::size_t bytes) {
        for (std::size_t at = 0; at < bytes; at += 64) __builtin_prefetch(static_cast<const char*>(object) + at, 1);
    };
    const std::lock_guard lock(mutex_);
    for (const pega_completion& record : records) {
        const Slot* slot = slot_of(record.user_data);
        if (slot == nullptr) continue;
        fetch(slot->entry.transfer, sizeof(Transfer::Impl) - sizeof(Transfer::Impl::More));
        fetch(slot->entry.state.get(), sizeof(Completion::State));
    }
}

}  // namespace pegaflow::core

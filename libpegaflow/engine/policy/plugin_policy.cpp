// SPDX-License-Identifier: Apache-2.0
#include "engine/policy/plugin_policy.hpp"

#include <fmt/format.h>

#include <bit>
#include <vector>

#include "pegaflow/abi/policy.h"
#include "pegaflow/transfer.hpp"

namespace pegaflow::engine {
namespace {

pega_policy_time plain(const PolicyTime& time) noexcept { return {sizeof(pega_policy_time), 0, time.now, time.turnover}; }

pega_policy_block facts(const Block& block) noexcept {
    return {sizeof(pega_policy_block),
            block.uses.load(std::memory_order_relaxed),
            block.hash,
            block.footprint(),
            block.came,
            block.last_use.load(std::memory_order_relaxed),
            block.tag};
}

// One object of a module's policy.
template <class Table>
class Object {
public:
    Object(const Table& table, pega_policy* policy) noexcept : table_(&table), policy_(policy) {}
    Object(Object&& other) noexcept : table_(other.table_), policy_(std::exchange(other.policy_, nullptr)) {}
    Object& operator=(Object&&) = delete;
    ~Object() {
        if (policy_ != nullptr) table_->destroy(policy_);
    }
    const Table& table() const noexcept { return *table_; }
    pega_policy* get() const noexcept { return policy_; }

private:
    const Table* table_;
    pega_policy* policy_;
};

class PluginEviction final : public EvictionPolicy {
public:
    explicit PluginEviction(Object<pega_eviction_table> object) noexcept : object_(std::move(object)) {}

    void inserted(Block& block, const PolicyTime& time) override {
        if (!PEGA_HAS(pega_eviction_table, &object_.table(), insert)) return;
        pega_policy_block known = facts(block);
        const pega_policy_time now = plain(time);
        object_.table().insert(object_.get(), &known, &now);
        block.tag = known.tag;
    }
    void removed(Block& block, bool evicted) override {
        if (!PEGA_HAS(pega_eviction_table, &object_.table(), remove)) return;
        const pega_policy_block known = facts(block);
        object_.table().remove(object_.get(), &known, evicted ? 1 : 0);
    }
    std::uint64_t rank(Block& block, const PolicyTime& time) override {
        const pega_policy_block known = facts(block);
        const pega_policy_time now = plain(time);
        return object_.table().rank(object_.get(), &known, &now);
    }

private:
    Object<pega_eviction_table> object_;
};

class PluginAdmission final : public AdmissionPolicy {
public:
    explicit PluginAdmission(std::vector<Object<pega_admission_table>> objects) noexcept : objects_(std::move(objects)) {}

    bool admit(const Block& candidate, const Block& victim, const PolicyTime& time) noexcept override {
        const int bits = std::countr_zero(objects_.size());
        const auto& object = objects_[bits == 0 ? 0 : candidate.hash >> (64 - bits)];
        const pega_policy_block fresh = facts(candidate), old = facts(victim);
        const pega_policy_time now = plain(time);
        return object.table().admit(object.get(), &fresh, &old, &now) != 0;
    }

private:
    std::vector<Object<pega_admission_table>> objects_;  // by the highest bits of a hash
};

const char* missing(const pega_eviction_table& t) {
    if (!PEGA_HAS(pega_eviction_table, &t, create)) return "create";
    if (!PEGA_HAS(pega_eviction_table, &t, destroy)) return "destroy";
    return PEGA_HAS(pega_eviction_table, &t, rank) ? nullptr : "rank";
}

const char* missing(const pega_admission_table& t) {
    if (!PEGA_HAS(pega_admission_table, &t, create)) return "create";
    if (!PEGA_HAS(pega_admission_table, &t, destroy)) return "destroy";
    return PEGA_HAS(pega_admission_table, &t, admit) ? nullptr : "admit";
}

// The objects of a module's policy, one a part.
template <class Table>
Result<std::vector<Object<Table>>> make_objects(Fabric& fabric, std::string_view name, const char* id,
                                                const PolicyScale& scale) {
    PEGA_ASSIGN(const pega_entry* const entry, fabric.module(name));
    const auto* table = static_cast<const Table*>(entry->get(id));
    if (table == nullptr) return fail(Code::kUnsupported, fmt::format("module \"{}\" has no table \"{}\"", name, id));
    if (const char* member = missing(*table)) {
        return fail(Code::kUnsupported,
                    fmt::format("table \"{}\" of module \"{}\" lacks the mandatory member \"{}\"", id, name, member));
    }
    const std::vector<pega_option> options = fabric.module_options(name);
    std::vector<Object<Table>> objects;
    objects.reserve(scale.parts);
    for (std::uint32_t part = 0; part < scale.parts; ++part) {
        const pega_policy_params params = {sizeof params,  static_cast<std::uint32_t>(options.size()),
                                           options.data(), scale.expected_blocks,
                                           part,           scale.parts};
        pega_policy* policy = nullptr;
        const pega_status status = table->create(fabric.host(), &params, &policy);
        if (status != PEGA_OK || policy == nullptr) {
            const Code code = status == PEGA_OK ? Code::kInternal : static_cast<Code>(status);
            return fail(code, fmt::format("policy \"{}\" cannot be made: {}; the log may say why", name, to_string(code)));
        }
        objects.emplace_back(*table, policy);
    }
    return objects;
}

// Neither built in nor a module: both answers, in one.
Error neither(Error built_in, const Error& module) {
    built_in.message += "; " + module.message;
    return built_in;
}

}  // namespace

Result<EvictionFactory> find_eviction_policy(Fabric& fabric, std::string_view name, const PolicyScale& scale) {
    auto built_in = make_eviction_policy(name, scale.expected_blocks);
    if (built_in) return built_in;
    auto made = make_objects<pega_eviction_table>(fabric, name, PEGA_EVICTION_TABLE, scale);
    if (!made && made.error().code == Code::kNotFound) return fail(neither(std::move(built_in).error(), made.error()));
    if (!made) return fail(std::move(made).error());
    auto objects = std::make_shared<std::vector<Object<pega_eviction_table>>>(std::move(*made));  // of the factory's copies
    return EvictionFactory([objects] {
        auto policy = std::make_unique<PluginEviction>(std::move(objects->back()));
        objects->pop_back();
        return policy;
    });
}

Result<std::unique_ptr<AdmissionPolicy>> find_admission_policy(Fabric& fabric, std::string_view name,
                                                               const PolicyScale& scale) {
    auto built_in = make_admission_policy(name);
    if (built_in) return built_in;
    auto made = make_objects<pega_admission_table>(fabric, name, PEGA_ADMISSION_TABLE, scale);
    if (!made && made.error().code == Code::kNotFound) return fail(neither(std::move(built_in).error(), made.error()));
    if (!made) return fail(std::move(made).error());
    return std::unique_ptr<AdmissionPolicy>(std::make_unique<PluginAdmission>(std::move(*made)));
}

}  // namespace pegaflow::engine

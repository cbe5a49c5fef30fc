// SPDX-License-Identifier: Apache-2.0
// The policies that are built in, behind the tables of the ABI, under the suite that every policy passes.
#include "engine/policy/admission_policy.hpp"
#include "engine/policy/eviction_policy.hpp"
#include "tools/conformance/conformance.hpp"

namespace pegaflow::conformance {
namespace {

class NoPages final : public engine::PageOwner {
public:
    void free_page(std::uint64_t, std::uint64_t) noexcept override {}
};

// An object of a built-in policy; `Name` cannot be told otherwise, tables are plain functions.
struct Object {
    std::unique_ptr<engine::EvictionPolicy> eviction;
    std::unique_ptr<engine::AdmissionPolicy> admission;
};

pega_policy* as_policy(std::unique_ptr<Object> object) { return reinterpret_cast<pega_policy*>(object.release()); }
Object& object_of(pega_policy* policy) { return *reinterpret_cast<Object*>(policy); }
void destroy(pega_policy* policy) { delete &object_of(policy); }

// A block with the facts of `known`. What a built-in keeps in the block beside them goes through the tag.
class KnownBlock {
public:
    explicit KnownBlock(const pega_policy_block& known) : block_(engine::BlockKey(1, 0, "x"), known.hash, pages_) {
        block_.uses = static_cast<std::uint8_t>(known.uses);
        block_.last_use = known.last_use;
        block_.came = known.came;
        block_.epoch = static_cast<std::uint8_t>(known.tag);
    }
    engine::Block& get() { return block_; }

private:
    NoPages pages_;
    engine::Block block_;
};

engine::PolicyTime time_of(const pega_policy_time* time) { return {time->now, time->turnover}; }

template <const char* Name>
pega_status create_eviction(const pega_host*, const pega_policy_params* params, pega_policy** out) {
    // The parts of one index share what they know of blocks that went; here each has its own.
    auto factory = engine::make_eviction_policy(Name, params->expected_blocks);
    if (!factory) return static_cast<pega_status>(factory.error().code);
    *out = as_policy(std::make_unique<Object>(Object{(*factory)(), nullptr}));
    return PEGA_OK;
}

std::uint64_t rank(pega_policy* policy, const pega_policy_block* known, const pega_policy_time* time) {
    KnownBlock block(*known);
    return object_of(policy).eviction->rank(block.get(), time_of(time));
}

void insert(pega_policy* policy, pega_policy_block* known, const pega_policy_time* time) {
    KnownBlock block(*known);
    object_of(policy).eviction->inserted(block.get(), time_of(time));
    known->uses = block.get().uses;
    known->tag = block.get().epoch;
}

void remove(pega_policy* policy, const pega_policy_block* known, std::uint32_t evicted) {
    KnownBlock block(*known);
    object_of(policy).eviction->removed(block.get(), evicted != 0);
}

pega_status create_admission(const pega_host*, const pega_policy_params*, pega_policy** out) {
    *out = as_policy(std::make_unique<Object>(Object{nullptr, std::move(*engine::make_admission_policy("none"))}));
    return PEGA_OK;
}

std::uint32_t admit(pega_policy* policy, const pega_policy_block* candidate, const pega_policy_block* victim,
                    const pega_policy_time* time) {
    KnownBlock fresh(*candidate), old(*victim);
    return object_of(policy).admission->admit(fresh.get(), old.get(), time_of(time)) ? 1 : 0;
}

void expect_passes(const PolicySubject& subject) {
    std::size_t passed = 0;
    for (const CheckResult& result : run(subject)) {
        EXPECT_NE(result.outcome, Outcome::kFailed) << result.name << ": " << result.text;
        passed += result.outcome == Outcome::kPassed ? 1 : 0;
    }
    EXPECT_GE(passed, 4U);
}

constexpr char kLru[] = "lru";
constexpr char kTinyLfu[] = "tiny_lfu";

TEST(PolicyConformance, Lru) {
    const pega_eviction_table table = {sizeof table, 0, create_eviction<kLru>, destroy, rank, insert, remove};
    expect_passes({&table, nullptr, nullptr, {}});
}

TEST(PolicyConformance, TinyLfu) {
    const pega_eviction_table table = {sizeof table, 0, create_eviction<kTinyLfu>, destroy, rank, insert, remove};
    expect_passes({&table, nullptr, nullptr, {}});
}

TEST(PolicyConformance, NoAdmission) {
    const pega_admission_table table = {sizeof table, 0, create_admission, destroy, admit};
    expect_passes({nullptr, &table, nullptr, {}});
}

// The suite itself: a policy that breaks the rule is found out.
TEST(PolicyConformance, FindsARankThatFallsByAUse) {
    const auto most_used_first = [](pega_policy*, const pega_policy_block* known, const pega_policy_time*) {
        return std::uint64_t{100} - known->uses;
    };
    const pega_eviction_table table = {sizeof table, 0, create_eviction<kLru>, destroy, most_used_first, nullptr, nullptr};
    bool found = false;
    for (const CheckResult& result : run(PolicySubject{&table, nullptr, nullptr, {}}))
        found |= result.name == "eviction.a_use_never_lowers_the_rank" && result.outcome == Outcome::kFailed;
    EXPECT_TRUE(found);
}

}  // namespace
}  // namespace pegaflow::conformance

// SPDX-License-Identifier: Apache-2.0
#include "engine/policy/plugin_policy.hpp"

#include "../toy_worker.hpp"

namespace pegaflow::engine {
namespace {

using ::testing::HasSubstr;

constexpr PolicyScale kScale = {100, 64};
constexpr const char* kPlugin = "template_policy";

Result<std::unique_ptr<Fabric>> fabric_with(const std::string& chances) {
    FabricOptions options;
    options.options[kPlugin]["chances"] = chances;
    return Fabric::open(std::move(options));
}

class NoPages final : public PageOwner {
public:
    void free_page(std::uint64_t, std::uint64_t) noexcept override {}
};

TEST(PluginPolicy, RanksAsTheModuleSays) {
    const auto fabric = fabric_with("3");
    ASSERT_TRUE(fabric);
    const auto factory = find_eviction_policy(**fabric, kPlugin, kScale);
    ASSERT_TRUE(factory) << factory.error().message;
    std::vector<std::unique_ptr<EvictionPolicy>> policies;
    for (std::uint32_t part = 0; part < kScale.parts; ++part) policies.push_back((*factory)());
    NoPages pages;
    Block block(BlockKey(1, 0, "x"), 7, pages);
    block.uses = 1;
    block.last_use = 1000;
    policies.back()->inserted(block, {1000, 50});
    EXPECT_EQ(policies.back()->rank(block, {1000, 50}), 1000U);
    block.touch(1100);
    EXPECT_EQ(policies.back()->rank(block, {1100, 50}), 1100U + 3 * 50);
    policies.back()->removed(block, true);
}

TEST(PluginPolicy, AdmitsAsTheModuleSays) {
    const auto fabric = fabric_with("2");
    const auto policy = find_admission_policy(**fabric, kPlugin, kScale);
    ASSERT_TRUE(policy) << policy.error().message;
    EXPECT_TRUE((*policy)->selective());
    NoPages pages;
    Block fresh(BlockKey(1, 0, "x"), UINT64_MAX, pages), victim(BlockKey(1, 0, "y"), 9, pages);
    victim.uses = 1;
    victim.last_use = 100;
    EXPECT_TRUE((*policy)->admit(fresh, victim, {110, 50}));
    victim.uses = 2;
    EXPECT_FALSE((*policy)->admit(fresh, victim, {110, 50}));
    EXPECT_TRUE((*policy)->admit(fresh, victim, {200, 50}));
}

TEST(PluginPolicy, SaysWhatIsWrong) {
    const auto fabric = fabric_with("many");
    const auto refused = find_eviction_policy(**fabric, kPlugin, kScale);
    EXPECT_EQ(refused.error().code, Code::kInvalid);
    const auto unknown = find_eviction_policy(**fabric, "nobody", kScale);
    EXPECT_EQ(unknown.error().code, Code::kNotFound);
    EXPECT_THAT(unknown.error().message, HasSubstr("there are: lru, tiny_lfu"));
    EXPECT_THAT(unknown.error().message, HasSubstr("no module \"nobody\""));
    const auto other = find_admission_policy(**fabric, "fault", kScale);
    EXPECT_EQ(other.error().code, Code::kUnsupported);
    EXPECT_THAT(other.error().message, HasSubstr("has no table \"pega.policy.admission/1\""));
}

class PluginEngineTest : public toy::EngineTest {};

TEST_F(PluginEngineTest, AnEngineRunsOnIt) {
    EngineOptions options = small(std::uint64_t{256} << 10);  // 16 pages
    options.eviction_policy = options.admission_policy = kPlugin;
    open(options);
    toy::ToyWorker w("i", 0, 0, 1, 1, 32, toy::layers(2, 8192));
    enroll(w);
    toy::Hashes often(0, 8);
    fill(w, often);
    for (int i = 0; i < 2; ++i) ASSERT_TRUE(engine_->release(lease_all("i", often)));
    for (std::uint32_t round = 0; round < 5; ++round) {
        toy::Hashes once(100 + round * 4, 4);
        ASSERT_TRUE(save(w, once, toy::ids(0, 4)));
    }
    ASSERT_TRUE(engine_->flush());
    EXPECT_EQ(query("i", often.views())->hit_blocks, 8U) << "used again, so it had another chance";
    EXPECT_GT(engine_->stats().evictions, 0U);
}

}  // namespace
}  // namespace pegaflow::engine

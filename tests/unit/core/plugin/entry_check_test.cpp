// SPDX-License-Identifier: Apache-2.0
#include "core/plugin/entry_check.hpp"

#include "core/plugin/registry.hpp"
#include "pegaflow/transfer.hpp"

namespace pegaflow::core {
namespace {

using ::testing::HasSubstr;

struct Refusal {
    const char* module;
    std::vector<const char*> words;  // what the sentence must name: what was found, what was expected
};

std::string file_of(const std::string& module) {
    return PEGA_TEST_MODULES "/" + module + "/pegaflow-backend-" + module + ".so";
}

class RefusalTest : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusalTest, NamesTheFileAndWhatIsWrong) {
    const std::string module = GetParam().module;
    auto fabric = Fabric::open({.search_path = {PEGA_TEST_MODULES "/" + module}, .backends = {module}});
    ASSERT_FALSE(fabric);
    EXPECT_EQ(fabric.error().code, Code::kNotFound);
    EXPECT_THAT(fabric.error().message, HasSubstr(file_of(module)));
    for (const char* word : GetParam().words) EXPECT_THAT(fabric.error().message, HasSubstr(word));
}

TEST_P(RefusalTest, IsTheSameBehindAWrapper) {
    const std::string module = GetParam().module;
    FabricOptions options{.search_path = {PEGA_TEST_MODULES "/" + module, PEGA_TEST_MODULES "/wrapper"}, .backends = {module}};
    options.wrap = {{"wrapper", module}};
    auto fabric = Fabric::open(options);
    ASSERT_FALSE(fabric);
    EXPECT_THAT(fabric.error().message, HasSubstr(file_of(module)));
    for (const char* word : GetParam().words) EXPECT_THAT(fabric.error().message, HasSubstr(word));
}

const Refusal kRefusals[] = {
    {"wrong_major", {"ABI 7.0", "speaks 1."}},
    {"short_entry", {"16 bytes", "expected at least 32"}},
    {"no_version", {"\"no_version\"", "\"version\""}},
    {"bad_name", {"\"Bad-Name\"", "lower case"}},
    {"other_name", {"\"somebody\"", "expected \"other_name\""}},
    {"short_table", {"pega.channel/1", "\"close\"", "lacks"}},
    {"no_member", {"pega.channel/1", "\"submit\"", "lacks"}},
    {"no_table", {"no table", "pega.completion/1"}},
    {"no_symbol", {"pegaflow_entry"}},
    {"borrowed", {"pegaflow_entry", "itself"}},
};

INSTANTIATE_TEST_SUITE_P(Modules, RefusalTest, ::testing::ValuesIn(kRefusals),
                         [](const auto& each) { return std::string(each.param.module); });

TEST(EntryCheck, TakesAGoodModuleWithAllItsTables) {
    auto library = Library::open(file_of("fake"));
    ASSERT_TRUE(library) << library.error().message;
    auto entry = check_entry(*library);
    ASSERT_TRUE(entry) << entry.error().message;
    EXPECT_STREQ((*entry)->name, "fake");
    auto tables = check_backend(*entry, library->path());
    ASSERT_TRUE(tables) << tables.error().message;
    EXPECT_EQ(tables->entry, *entry);
    EXPECT_NE(tables->backend->probe, nullptr);
    EXPECT_NE(tables->completion->arm, nullptr);
}

TEST(EntryCheck, AModuleThatOthersOfferIsReportedButNoObstacle) {
    // Nobody asked for these by name: the fabric opens and says what is wrong with each.
    auto fabric = Fabric::open({.search_path = {PEGA_TEST_MODULES "/wrong_major", PEGA_TEST_MODULES "/fake"}});
    ASSERT_TRUE(fabric) << fabric.error().message;
    bool refused = false;
    bool usable = false;
    for (const ModuleReport& report : (*fabric)->modules()) {
        if (report.name == "wrong_major")
            refused = report.problem.find("ABI 7.0") != std::string::npos && report.devices.empty();
        if (report.name == "fake") usable = report.problem.empty() && report.version == "0.1" && report.devices.size() == 2;
    }
    EXPECT_TRUE(refused);
    EXPECT_TRUE(usable);
}

}  // namespace
}  // namespace pegaflow::core

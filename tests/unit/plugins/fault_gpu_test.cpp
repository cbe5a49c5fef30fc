// SPDX-License-Identifier: Apache-2.0
// The plug-in fault around the cuda back end, over the fake driver or a GPU: memory that a processor does not address, and
// codes that are no errno.
#include <unistd.h>

#include <cstdlib>

#include "pegaflow/abi/backend.h"
#include "tests/unit/plugins/fault_fixture.hpp"

namespace pegaflow {
namespace {

constexpr auto kPatience = std::chrono::seconds(30);

class FaultOnGpu : public FaultFixture {
protected:
    void start(Rules rules) {
        if (::access(FAKE_DRIVER, R_OK) == 0) ::setenv("PEGAFLOW_LIBCUDA", FAKE_DRIVER, 0);
        if (const std::string problem = open("cuda", std::move(rules), PEGA_MEMORY_GPU); !problem.empty())
            GTEST_SKIP() << problem;
    }
    void run(Transfer& transfer) {
        auto completion = channel_.submit(transfer);
        ASSERT_TRUE(completion) << completion.error().message;
        const auto moved = completion->wait_for(kPatience);
        ASSERT_TRUE(moved) << moved.error().message;
    }
};

TEST_F(FaultOnGpu, CorruptChangesAByteOfGpuMemory) {
    start({{"corrupt", "1"}, {"op", "read"}});
    std::memset(bytes(remote_), 7, kBytes);
    Transfer transfer;
    transfer.flat(local_, remote_).range(0, 0, 0).range(256, 0, 1024).read();  // to the GPU: spoilt
    run(transfer);
    std::memset(bytes(remote_), 0, kBytes);
    fill(transfer, local_, remote_);  // from it: as it is there
    run(transfer);
    std::vector<unsigned char> expected(1024, 7);
    expected[0] ^= 1;
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), bytes(remote_) + 256));
}

TEST_F(FaultOnGpu, NativeCodesAreInTheWordsOfTheirBackEnd) {
    start({});
    constexpr std::int32_t kLaunchTimeout = 702;  // a CUresult, and no errno
    const auto text_of = [&](const char* module) {
        const auto entry = fabric_->module(module);
        EXPECT_TRUE(entry);
        const auto* table = static_cast<const pega_backend_table*>((*entry)->get(PEGA_BACKEND_TABLE));
        return std::string(table->error_text(kLaunchTimeout));
    };
    EXPECT_NE(text_of("cuda"), "");
    EXPECT_EQ(text_of("fault"), text_of("cuda"));
}

}  // namespace
}  // namespace pegaflow

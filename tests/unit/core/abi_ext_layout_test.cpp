// SPDX-License-Identifier: Apache-2.0
// The same as abi_layout_test.cpp for the extensions that came after the first ones.
#include "pegaflow/abi/ext/calibration.h"
#include "pegaflow/abi/ext/digest.h"
#include "pegaflow/abi/ext/durable.h"
#include "pegaflow/abi/ext/wait.h"
#include "tests/unit/core/abi_pin.hpp"

namespace {

TEST(AbiLayout, Calibration) {
    PIN_SIZE(pega_path_rate, 56);
    PIN(pega_path_rate, size, 0, 4);
    PIN(pega_path_rate, op, 4, 4);
    PIN(pega_path_rate, flags, 8, 4);
    PIN(pega_path_rate, reserved, 12, 4);
    PIN(pega_path_rate, path, 16, 16);
    PIN(pega_path_rate, fragment_bytes, 32, 8);
    PIN(pega_path_rate, batch_bytes, 40, 8);
    PIN(pega_path_rate, bytes_per_second, 48, 8);
    PIN_SIZE(pega_ext_calibration, 16);
    PIN(pega_ext_calibration, size, 0, 4);
    PIN(pega_ext_calibration, reserved, 4, 4);
    PIN(pega_ext_calibration, rates, 8, 8);
    EXPECT_STREQ(PEGA_EXT_CALIBRATION, "pega.ext.calibration/1");
    EXPECT_EQ(PEGA_RATE_CHOSEN, 1u);
    EXPECT_EQ(PEGA_RATE_MEASURED, 2u);
}

TEST(AbiLayout, Digest) {
    PIN_SIZE(pega_digest_option, 40);
    PIN(pega_digest_option, base, 0, 24);
    PIN(pega_digest_option, sums, 24, 8);
    PIN(pega_digest_option, computed, 32, 8);
    EXPECT_EQ(PEGA_OPTION_DIGEST, 4u);
    EXPECT_EQ(PEGA_DIGEST_G, 0x9E37'79B9'7F4A'7C15u);
}

TEST(AbiLayout, Durable) {
    PIN_SIZE(pega_durable_option, 24);
    PIN(pega_durable_option, base, 0, 24);
    PIN_SIZE(pega_ext_durable, 24);
    PIN(pega_ext_durable, size, 0, 4);
    PIN(pega_ext_durable, reserved, 4, 4);
    PIN(pega_ext_durable, flush, 8, 8);
    PIN(pega_ext_durable, discard, 16, 8);
    EXPECT_STREQ(PEGA_EXT_DURABLE, "pega.ext.durable/1");
    EXPECT_EQ(PEGA_OPTION_DURABLE, 3u);
}

TEST(AbiLayout, Wait) {
    PIN_SIZE(pega_ext_wait, 24);
    PIN(pega_ext_wait, size, 0, 4);
    PIN(pega_ext_wait, reserved, 4, 4);
    PIN(pega_ext_wait, wait, 8, 8);
    PIN(pega_ext_wait, interrupt, 16, 8);
    EXPECT_STREQ(PEGA_EXT_WAIT, "pega.ext.wait/1");
}

}  // namespace

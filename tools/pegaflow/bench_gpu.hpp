// SPDX-License-Identifier: Apache-2.0
// bench_gpu.hpp - what a GPU of a benchmark is connected by and driven by, as the driver and /sys tell.
#pragma once

#include <string>

namespace pegaflow::cli {

struct Gpu {
    std::string driver, cuda;                  // versions; "" = not known
    int pcie_gen = 0, pcie_width = 0;          // as they are now; 0 = not known
    int most_gen = 0, most_width = 0;          // that it can do
    double link_bytes_per_s() const noexcept;  // one way, before headers of packets; 0 = not known
    bool is_slowed() const noexcept;
};

// The GPU with this uuid, as the driver prints it. Empty members where nothing is known.
Gpu find_gpu(const std::string& uuid);
// The members that tell of the link, from the directory of a PCI device. Empty when it is no display or compute device.
Gpu read_link(const std::string& directory);

}  // namespace pegaflow::cli

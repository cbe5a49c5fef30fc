// SPDX-License-Identifier: Apache-2.0
// The doctor on machines that are directories of small files.
#include "tools/pegaflow/doctor.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

namespace pegaflow::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

class DoctorTest : public ::testing::Test {
protected:
    void SetUp() override {
        root_ = fs::temp_directory_path() / fmt::format("pegaflow-doctor-{}", ::getpid());
        fs::remove_all(root_);
        roots_ = {root_ / "sys", root_ / "proc", root_ / "dev"};
        write("proc/meminfo",
              "MemTotal:       67108864 kB\nMemAvailable:   33554432 kB\nHugePages_Total:    4096\n"
              "HugePages_Free:     2048\nHugepagesize:       2048 kB\n");
        write("proc/self/cgroup", "0::/\n");
        write("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
    }
    void TearDown() override { fs::remove_all(root_); }
    void write(const std::string& path, const std::string& text) {
        fs::create_directories((root_ / path).parent_path());
        std::ofstream(root_ / path) << text;
    }
    // The findings of an examination by subject; all that are not "ok" have advice.
    template <class Check>
    std::vector<Finding> find(Check check) {
        std::vector<Finding> out;
        check(out);
        for (const Finding& f : out) {
            EXPECT_THAT(f.level, ::testing::AnyOf("ok", "warn", "fail")) << f.subject;
            EXPECT_FALSE(f.text.empty()) << f.subject;
            EXPECT_TRUE(f.level == "ok" || !f.advice.empty()) << f.subject << ": " << f.text;
        }
        return out;
    }
    std::vector<Finding> memory(const PoolWish& pool, const Limits& limits = {}) {
        return find([&](auto& out) { check_memory(roots_, pool, limits, out); });
    }
    std::vector<Finding> buses() {
        return find([&](auto& out) {
            check_numa(roots_, out);
            check_rdma(roots_, out);
            check_nvidia(roots_, out);
        });
    }
    static Finding of(const std::vector<Finding>& all, const std::string& subject) {
        for (const Finding& f : all) {
            if (f.subject == subject) return f;
        }
        ADD_FAILURE() << "no finding about " << subject;
        return {};
    }
    void add_gpu(const std::string& address, const std::string& node) {
        write("sys/bus/pci/devices/" + address + "/class", "0x030200\n");
        write("sys/bus/pci/devices/" + address + "/vendor", "0x10de\n");
        write("sys/bus/pci/devices/" + address + "/numa_node", node + "\n");
    }
    void add_port(const std::string& adapter, const std::string& state, const std::string& layer) {
        const std::string port = "sys/class/infiniband/" + adapter + "/ports/1/";
        write(port + "state", state + "\n");
        write(port + "phys_state", "5: LinkUp\n");
        write(port + "link_layer", layer + "\n");
        write(port + "rate", "400 Gb/sec (4X NDR)\n");
        write("sys/class/infiniband/" + adapter + "/device/numa_node", "1\n");
    }

    fs::path root_;
    Roots roots_;
};

TEST_F(DoctorTest, APoolFitsOrTheFindingSaysWhatIsMissing) {
    EXPECT_EQ(of(memory({30 * kGiB}), "pool").level, "ok");
    const Finding large = of(memory({40 * kGiB}), "pool");
    EXPECT_EQ(large.level, "fail");
    EXPECT_EQ(large.text, "pool.size 40 GiB, but 32 GiB of memory are available");
    EXPECT_EQ(of(memory({4 * kGiB, true}), "pool").level, "ok");
    const Finding huge = of(memory({5 * kGiB, true}), "pool");
    EXPECT_EQ(huge.text, "pool.size 5 GiB, but the free huge pages have 4 GiB");
    EXPECT_THAT(huge.advice, HasSubstr("vm.nr_hugepages"));
}

TEST_F(DoctorTest, TheTightestControlGroupCounts) {
    write("proc/self/cgroup", "0::/pods/server\n");
    write("sys/fs/cgroup/pods/server/memory.max", "max\n");
    write("sys/fs/cgroup/pods/memory.max", std::to_string(16 * kGiB) + "\n");
    write("sys/fs/cgroup/pods/memory.current", std::to_string(6 * kGiB) + "\n");
    write("sys/fs/cgroup/pods/memory.stat", fmt::format("anon 5\ninactive_file {}\n", 2 * kGiB));
    EXPECT_EQ(of(memory({12 * kGiB}), "pool").level, "ok") << "the file cache gives way";
    const Finding full = of(memory({13 * kGiB}), "pool");
    EXPECT_EQ(full.level, "fail");
    EXPECT_THAT(full.text, HasSubstr("the control group leaves 12 GiB of its 16 GiB"));
    EXPECT_THAT(full.text, HasSubstr("pods/memory.max"));
}

TEST_F(DoctorTest, ControlGroupsOfTheFirstVersionAreRead) {
    write("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/server\n0::/\n");
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    write("sys/fs/cgroup/memory/server/memory.limit_in_bytes", std::to_string(8 * kGiB) + "\n");
    write("sys/fs/cgroup/memory/server/memory.usage_in_bytes", std::to_string(1 * kGiB) + "\n");
    EXPECT_EQ(of(memory({7 * kGiB}), "pool").level, "ok");
    EXPECT_THAT(of(memory({8 * kGiB}), "pool").text, HasSubstr("leaves 7 GiB of its 8 GiB"));
}

TEST_F(DoctorTest, LockedMemoryIsComparedWithThePool) {
    EXPECT_EQ(of(memory({kGiB}), "locked memory").text, "no limit");
    EXPECT_EQ(of(memory({kGiB}, {2 * kGiB}), "locked memory").level, "ok");
    const Finding tight = of(memory({kGiB}, {8 << 20}), "locked memory");
    EXPECT_EQ(tight.level, "warn");
    EXPECT_THAT(tight.text, HasSubstr("limited to 8 MiB"));
    EXPECT_THAT(tight.advice, HasSubstr("ulimit -l unlimited"));
}

TEST_F(DoctorTest, HugePagesThatAreNotThereComeWithTheCommand) {
    EXPECT_EQ(of(memory({kGiB}), "huge pages").text, "2048 of 4096 free, 2048 KiB each");
    EXPECT_EQ(of(memory({kGiB}), "transparent huge pages").level, "ok");
    write("proc/meminfo", "MemAvailable: 33554432 kB\n");
    write("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
    EXPECT_THAT(of(memory({kGiB}), "huge pages").advice, HasSubstr("sysctl vm.nr_hugepages"));
    EXPECT_EQ(of(memory({kGiB}), "transparent huge pages").level, "warn");
}

TEST_F(DoctorTest, EveryDeviceIsShownAtItsNode) {
    write("sys/devices/system/node/node0/cpulist", "0-7\n");
    write("sys/devices/system/node/node1/cpulist", "8-15\n");
    add_gpu("0000:17:00.0", "0");
    add_gpu("0000:97:00.0", "1");
    add_port("mlx5_0", "4: ACTIVE", "InfiniBand");
    write("sys/class/nvme/nvme0/device/numa_node", "0\n");
    const Finding numa = of(buses(), "NUMA");
    EXPECT_EQ(numa.level, "ok");
    EXPECT_EQ(numa.text, "2 nodes; node 0: GPU 0000:17:00.0, nvme0; node 1: GPU 0000:97:00.0, mlx5_0");
    add_gpu("0000:98:00.0", "-1");
    const Finding homeless = of(buses(), "NUMA");
    EXPECT_EQ(homeless.level, "warn");
    EXPECT_THAT(homeless.text, HasSubstr("no node known: GPU 0000:98:00.0"));
    EXPECT_THAT(homeless.advice, HasSubstr("GPU 0000:98:00.0"));
}

TEST_F(DoctorTest, PortsOfRdmaAdaptersTellTheirState) {
    EXPECT_EQ(of(buses(), "RDMA devices").text, "none");
    EXPECT_FALSE(of(buses(), "RDMA devices").advice.empty());
    add_port("mlx5_0", "4: ACTIVE", "InfiniBand");
    EXPECT_THAT(of(buses(), "RDMA devices").text, HasSubstr("no /dev/infiniband/uverbs*"));
    write("dev/infiniband/uverbs0", "");
    add_port("mlx5_1", "2: INIT", "InfiniBand");
    add_port("mlx5_2", "1: DOWN", "Ethernet");
    const auto all = buses();
    EXPECT_EQ(of(all, "mlx5_0").level, "ok");
    EXPECT_EQ(of(all, "mlx5_0").text, "port 1: ACTIVE, LinkUp, InfiniBand, 400 Gb/sec (4X NDR)");
    EXPECT_THAT(of(all, "mlx5_1").advice, HasSubstr("subnet manager"));
    EXPECT_EQ(of(all, "mlx5_2").level, "warn");
    EXPECT_THAT(of(all, "mlx5_2").advice, HasSubstr("ip link set"));
}

TEST_F(DoctorTest, ADriverThatIsMissingIsAFailureOnlyWhereThereAreGpus) {
    EXPECT_EQ(of(buses(), "NVIDIA driver").level, "ok");
    EXPECT_FALSE(of(buses(), "NVIDIA driver").advice.empty());
    add_gpu("0000:17:00.0", "0");
    EXPECT_EQ(of(buses(), "NVIDIA driver").level, "fail");
    EXPECT_THAT(of(buses(), "NVIDIA driver").text, HasSubstr("0000:17:00.0"));
    write("proc/driver/nvidia/version", "NVRM version: 550.54\n");
    EXPECT_THAT(of(buses(), "NVIDIA driver").text, HasSubstr("no /dev/nvidia*"));
    write("dev/nvidia0", "");
    EXPECT_EQ(of(buses(), "NVIDIA driver").level, "ok");
}

TEST_F(DoctorTest, DisksAreDescribedAndJudged) {
    const auto disks = [&] { return find([&](auto& out) { check_disks(roots_, out); }); };
    EXPECT_EQ(of(disks(), "disks").text, "none are visible here");
    write("sys/block/nvme0n1/size", "2097152\n");
    write("sys/block/nvme0n1/queue/scheduler", "none [mq-deadline]\n");
    write("sys/block/nvme0n1/queue/write_cache", "write through\n");
    write("sys/block/nvme0n1/device/device/current_link_speed", "8.0 GT/s PCIe\n");
    write("sys/block/nvme0n1/device/device/max_link_speed", "32.0 GT/s PCIe\n");
    write("sys/block/loop0/size", "2097152\n");
    const auto all = disks();
    ASSERT_EQ(all.size(), 3U);
    EXPECT_THAT(all[0].text, HasSubstr("1 GiB"));
    EXPECT_THAT(all[1].advice, HasSubstr("echo none > /sys/block/nvme0n1/queue/scheduler"));
    EXPECT_THAT(all[2].text, HasSubstr("8.0 GT/s PCIe"));
}

}  // namespace
}  // namespace pegaflow::cli

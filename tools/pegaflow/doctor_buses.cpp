// SPDX-License-Identifier: Apache-2.0
// What lies on the buses, as the kernel describes it: GPUs, RDMA adapters, drives, and the memory nodes that they are near to.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <map>

#include "tools/pegaflow/doctor.hpp"

namespace pegaflow::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kNoNode = -1;

int node_of(const fs::path& device) {
    const std::string text = line_of(device / "numa_node");
    return text.empty() ? kNoNode : static_cast<int>(std::strtol(text.c_str(), nullptr, 10));
}

std::vector<std::string> nvidia_gpus(const Roots& roots) {
    const fs::path bus = roots.sys / "bus" / "pci" / "devices";
    std::vector<std::string> out;
    for (const std::string& address : names_in(bus)) {
        const bool display = line_of(bus / address / "class").starts_with("0x03");
        if (display && line_of(bus / address / "vendor") == "0x10de") out.push_back(address);
    }
    return out;
}

std::vector<std::string> numbered(const fs::path& directory, std::string_view prefix) {
    std::vector<std::string> out;
    for (const std::string& name : names_in(directory)) {
        const std::string_view number = std::string_view(name).substr(std::min(prefix.size(), name.size()));
        if (name.starts_with(prefix) && !number.empty() && number.find_first_not_of("0123456789") == std::string_view::npos)
            out.push_back(name);
    }
    return out;
}

// One port of an adapter: "port 1: ACTIVE, LinkUp, InfiniBand, 400 Gb/sec (4X NDR)".
void check_port(const fs::path& ports, const std::string& device, const std::string& port, std::vector<Finding>& out) {
    const auto word = [&](const char* name) {  // "4: ACTIVE"
        const std::string line = line_of(ports / port / name);
        const std::size_t colon = line.find(": ");
        return colon == std::string::npos ? line : line.substr(colon + 2);
    };
    const std::string state = word("state"), layer = word("link_layer");
    const std::string text = fmt::format("port {}: {}, {}, {}, {}", port, state.empty() ? "no state" : state,
                                         word("phys_state"), layer, word("rate"));
    if (state == "ACTIVE") return out.push_back({"ok", device, text, ""});
    const bool ethernet = layer == "Ethernet";
    out.push_back({"warn", device, text,
                   ethernet ? "`ip link set ... up` its network interface; if that is up, look at the cable and the switch"
                   : state == "INIT" ? "the link is up, but no subnet manager has configured it: start one (opensm)"
                                     : "no link: look at the cable, the other side, and `ibstat`"});
}

}  // namespace

std::string line_of(const fs::path& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    line.erase(line.find_last_not_of(" \t") + 1);
    return line;
}

std::vector<std::string> names_in(const fs::path& directory) {
    std::vector<std::string> out;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(directory, error)) out.push_back(entry.path().filename().string());
    std::sort(out.begin(), out.end());
    return out;
}

void check_numa(const Roots& roots, std::vector<Finding>& out) {
    const std::size_t nodes = numbered(roots.sys / "devices" / "system" / "node", "node").size();
    std::map<int, std::string> near;
    std::string homeless;
    const auto place = [&](const std::string& name, const fs::path& device) {
        const int node = node_of(device);
        near[node] += (near[node].empty() ? "" : ", ") + name;
        if (node == kNoNode && fs::exists(device / "numa_node")) homeless += (homeless.empty() ? "" : ", ") + name;
    };
    for (const std::string& gpu : nvidia_gpus(roots)) place("GPU " + gpu, roots.sys / "bus" / "pci" / "devices" / gpu);
    const fs::path rdma = roots.sys / "class" / "infiniband", nvme = roots.sys / "class" / "nvme";
    for (const std::string& adapter : names_in(rdma)) place(adapter, rdma / adapter / "device");
    for (const std::string& drive : numbered(nvme, "nvme")) place(drive, nvme / drive / "device");
    std::string text = fmt::format("{} node{}", std::max<std::size_t>(nodes, 1), nodes > 1 ? "s" : "");
    for (const auto& [node, names] : near)
        text += fmt::format("; {}: {}", node == kNoNode ? "no node known" : fmt::format("node {}", node), names);
    if (nodes < 2 || homeless.empty()) return out.push_back({"ok", "NUMA", text, ""});
    out.push_back({"warn", "NUMA", text,
                   "the firmware does not say to which node " + homeless +
                       " belongs, so pages may lie far from it: update the firmware, look for its NUMA settings, and pass the "
                       "topology on to a virtual machine"});
}

void check_rdma(const Roots& roots, std::vector<Finding>& out) {
    const fs::path directory = roots.sys / "class" / "infiniband";
    const std::vector<std::string> adapters = names_in(directory);
    if (adapters.empty()) {
        return out.push_back({"ok", "RDMA devices", "none",
                              "if there is an adapter: load its driver (for example mlx5_ib), or for tests add a soft one "
                              "(`rdma link add rxe0 type rxe netdev eth0`)"});
    }
    if (numbered(roots.dev / "infiniband", "uverbs").empty()) {
        out.push_back({"warn", "RDMA devices", "there are adapters, but no /dev/infiniband/uverbs*",
                       "load ib_uverbs; pass --device /dev/infiniband to the container"});
    }
    for (const std::string& adapter : adapters) {
        const fs::path ports = directory / adapter / "ports";
        for (const std::string& port : names_in(ports)) check_port(ports, adapter, port, out);
    }
}

void check_nvidia(const Roots& roots, std::vector<Finding>& out) {
    const std::vector<std::string> gpus = nvidia_gpus(roots);
    const std::string driver = line_of(roots.proc / "driver" / "nvidia" / "version");
    if (!driver.empty()) {
        if (!numbered(roots.dev, "nvidia").empty()) return out.push_back({"ok", "NVIDIA driver", driver, ""});
        return out.push_back({"fail", "NVIDIA driver", driver + ", but no /dev/nvidia*",
                              "start the container with its GPUs (--gpus all), or run nvidia-modprobe"});
    }
    if (!gpus.empty()) {
        return out.push_back({"fail", "NVIDIA driver", fmt::format("none, but there are GPUs: {}", fmt::join(gpus, ", ")),
                              "install the driver until `nvidia-smi` lists them"});
    }
    out.push_back({"ok", "NVIDIA driver", "none, and no NVIDIA GPU is visible; the host back end plays device memory",
                   "if there should be GPUs: `lspci -d 10de:` shows them on the host, --gpus all gives them to a container"});
}

}  // namespace pegaflow::cli

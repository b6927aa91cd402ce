// Which processor this is, and how many of its cores this process may keep busy.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>

#include <set>
#include <utility>
#endif

namespace outrider::detail {

/// Cores' worth of time that control groups leave: the least quota of the group `path` and of those above it, below
/// `root` (version 2: cpu.max; version 1: cpu.cfs_quota_us). 0: no quota.
[[nodiscard]] inline double quota_of(const std::filesystem::path& root, std::filesystem::path path) {
    double least = 0;
    for (path = path.relative_path();; path = path.parent_path()) {
        double quota = 0, period = 0;
        if (!(std::ifstream(root / path / "cpu.max") >> quota >> period)) {
            std::ifstream(root / path / "cpu.cfs_quota_us") >> quota;
            std::ifstream(root / path / "cpu.cfs_period_us") >> period;
        }
        if (quota > 0 && period > 0) least = least > 0 ? std::min(least, quota / period) : quota / period;
        if (path.empty()) return least;
    }
}

/// Of this process's own groups.
[[nodiscard]] inline double quota() {
    double least = 0;
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {  // number:controllers:path
        const auto first = line.find(':'), second = line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = ',' + line.substr(first + 1, second - first - 1) + ',';
        if (controllers != ",," && controllers.find(",cpu,") == std::string::npos) continue;
        const std::filesystem::path root = controllers == ",," ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu";
        const double here = quota_of(root, line.substr(second + 1));
        if (here > 0) least = least > 0 ? std::min(least, here) : here;
    }
    return least;
}

/// Physical cores that this process may run on.
[[nodiscard]] inline int cores_by_affinity() {
#if defined(__linux__)
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) {
        std::set<std::pair<int, int>> cores;
        for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
            if (!CPU_ISSET(cpu, &allowed)) continue;
            const std::string folder = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
            int package = 0, core = cpu;
            std::ifstream(folder + "physical_package_id") >> package;
            if (std::ifstream file(folder + "core_id"); !(file >> core)) core = cpu;
            cores.emplace(package, core);
        }
        return static_cast<int>(cores.size());
    }
#endif
    return static_cast<int>(std::thread::hardware_concurrency());
}

/// At least 1. A part of a core that a quota leaves beyond whole ones would only be waited for.
[[nodiscard]] inline int usable_cores() {
    const int cores = std::max(1, cores_by_affinity());
    const double most = quota();
    return most > 0 ? std::clamp(static_cast<int>(most), 1, cores) : cores;
}

/// As the system calls it, of the first one; "unknown processor" where it has no name.
[[nodiscard]] inline std::string processor_name() {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);)
        if (line.starts_with("model name")) return line.substr(std::min(line.find(':') + 2, line.size()));
    return "unknown processor";
}

}  // namespace outrider::detail

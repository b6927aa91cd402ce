#include "bench_machine.hpp"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <set>
#include <sstream>
#include <utility>

#include <outrider/core/detail/clock.hpp>
#include <outrider/core/error.hpp>

#include "kernels/weight_memory.hpp"

namespace outrider::cli {
namespace {

constexpr std::int64_t kLeastBuffer = std::int64_t{256} << 20, kMostBuffer = std::int64_t{1} << 30;
constexpr std::int64_t kSmallBuffer = std::int64_t{64} << 20;  // a smaller one might stay in a cache
constexpr int kReads = 8;
constexpr double kNoticed = 0.3;  // processors' worth of other work; a desktop at rest stays below

/// Bytes of all caches of the last level, each counted once; 0: unknown.
std::int64_t last_level_caches() {
    std::set<std::pair<std::string, int>> seen;  // whose it is, and which level
    std::int64_t kilobytes = 0;
    for (int cpu = 0;; ++cpu) {
        const std::filesystem::path folder = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/cache";
        int last = 3;  // index 0 and 1 are the first level's two
        while (last >= 2 && !std::filesystem::exists(folder / ("index" + std::to_string(last)))) --last;
        if (last < 2) return kilobytes << 10;
        const std::filesystem::path cache = folder / ("index" + std::to_string(last));
        std::string sharers;
        std::int64_t size = 0;  // "32768K"
        std::ifstream(cache / "shared_cpu_list") >> sharers;
        std::ifstream(cache / "size") >> size;
        if (seen.emplace(sharers, last).second) kilobytes += size;
    }
}

/// Bytes that a control group leaves, pages of files that nobody uses included; empty: no limit.
std::optional<std::int64_t> left_by(const std::filesystem::path& group) {
    std::int64_t limit = 0, used = 0, idle = 0;
    if (!(std::ifstream(group / "memory.max") >> limit)) std::ifstream(group / "memory.limit_in_bytes") >> limit;
    if (!(std::ifstream(group / "memory.current") >> used)) std::ifstream(group / "memory.usage_in_bytes") >> used;
    if (limit <= 0) return std::nullopt;  // "max", or no such file
    std::ifstream stat(group / "memory.stat");
    std::string name;
    for (std::int64_t bytes = 0; stat >> name >> bytes;)
        if (name == "inactive_file" || name == "total_inactive_file") idle = bytes;
    return std::max<std::int64_t>(limit - used + idle, 0);
}

/// The least of this process's groups and those above them.
std::optional<std::int64_t> left_by_groups() {
    std::optional<std::int64_t> least;
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {  // number:controllers:path
        const auto first = line.find(':'), second = line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = ',' + line.substr(first + 1, second - first - 1) + ',';
        if (controllers != ",," && controllers.find(",memory,") == std::string::npos) continue;
        const std::filesystem::path root = controllers == ",," ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
        for (auto path = std::filesystem::path(line.substr(second + 1)).relative_path();; path = path.parent_path()) {
            if (const auto left = left_by(root / path)) least = std::min(*left, least.value_or(*left));
            if (path.empty()) break;
        }
    }
    return least;
}

/// 0: there is too little memory to measure how fast it is.
std::int64_t buffer_size() {
    std::int64_t bytes = std::clamp(last_level_caches() * 3 / 2, kLeastBuffer, kMostBuffer);
    if (const auto there = available_memory()) bytes = std::min(bytes, *there / 4);
    return bytes < kSmallBuffer ? 0 : bytes / 64 * 64;
}

/// The member's share of `words`, in an order that keeps eight additions under way.
std::uint64_t sum(const std::uint64_t* words, TeamMember::Range lines) {
    std::uint64_t sums[8] = {};
    for (const std::uint64_t *p = words + lines.begin * 8, *end = words + lines.end * 8; p < end; p += 8)
        for (std::size_t i = 0; i < 8; ++i) sums[i] += p[i];
    return std::accumulate(std::begin(sums), std::end(sums), std::uint64_t{0});
}

/// Processors that this process may run on, as /proc/stat names them.
std::set<std::string> allowed_processors() {
    std::set<std::string> names;
#if defined(__linux__)
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return names;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
        if (CPU_ISSET(cpu, &allowed)) names.insert("cpu" + std::to_string(cpu));
#endif
    return names;
}

/// Seconds that those were busy since the system started, stolen time included; 0: unknown.
double busy_seconds() {
    const std::set<std::string> allowed = allowed_processors();
    std::ifstream stat("/proc/stat");
    double ticks = 0;
    for (std::string line; std::getline(stat, line);) {
        std::istringstream in(line);
        std::string name;
        double user = 0, nice = 0, system = 0, idle = 0, waiting = 0, interrupts = 0, soft = 0, stolen = 0;
        if (!(in >> name >> user >> nice >> system >> idle >> waiting >> interrupts >> soft)) continue;
        in >> stolen;
        if (allowed.contains(name)) ticks += user + nice + system + interrupts + soft + stolen;
    }
    return ticks / double(sysconf(_SC_CLK_TCK));
}

double own_seconds() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& t) { return double(t.tv_sec) + 1e-6 * double(t.tv_usec); };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

void measure_bandwidth(ThreadTeam& team, MachineFacts& facts) {
    const std::int64_t bytes = buffer_size(), lines = bytes / 64;
    if (bytes == 0) return;
    const auto memory = kernels::weight_memory(static_cast<std::size_t>(bytes));
    auto* words = reinterpret_cast<std::uint64_t*>(memory.get());
    team.run([&](TeamMember& member) {  // whoever reads memory has touched it first
        const TeamMember::Range mine = member.range(lines);
        std::fill(words + mine.begin * 8, words + mine.end * 8, std::uint64_t{1});
    });
    for (int i = 0; i < kReads; ++i) {
        std::vector<std::uint64_t> sums(static_cast<std::size_t>(team.size()));
        const double start = now_seconds();
        team.run([&](TeamMember& member) {
            sums[static_cast<std::size_t>(member.index())] = sum(words, member.range(lines));
        });
        facts.bytes_per_second = std::max(facts.bytes_per_second, double(bytes) / (now_seconds() - start));
        const auto read = std::accumulate(sums.begin(), sums.end(), std::uint64_t{0});  // used, so that it is made
        require(read == static_cast<std::uint64_t>(lines) * 8, ErrorKind::internal, "bench: read {} words of {}", read,
                lines * 8);
    }
    facts.buffer_bytes = bytes;
}

std::optional<std::int64_t> available_memory() {
    const std::optional<std::int64_t> left = left_by_groups();
    std::ifstream info("/proc/meminfo");
    for (std::string name, rest; info >> name; std::getline(info, rest)) {
        std::int64_t kilobytes = 0;
        if (name == "MemAvailable:" && info >> kilobytes)
            return std::min(kilobytes << 10, left.value_or(kilobytes << 10));
    }
    return left;
}

OtherWork::OtherWork() : start_(now_seconds()), busy_(busy_seconds()), own_(own_seconds()) {}

std::optional<double> OtherWork::processors() const {
    const double seconds = now_seconds() - start_, busy = busy_seconds() - busy_, own = own_seconds() - own_;
    if (seconds <= 0 || busy < 0.5 * own) return std::nullopt;  // a system that shows no figures, or others'
    return std::max(0.0, busy - own) / seconds;
}

bool OtherWork::crowds(std::optional<double> others, int threads) {
    const auto processors = static_cast<double>(allowed_processors().size());
    return others && *others >= kNoticed && *others + threads > processors;
}

}  // namespace outrider::cli

#include <outrider/target/pass_times.hpp>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <system_error>

#include <ATen/core/grad_mode.h>

#include <outrider/core/version.hpp>
#include "kernels/isa.hpp"
#include <outrider/core/detail/thread_team.hpp>

namespace outrider {
namespace {

using Json = nlohmann::json;

constexpr std::int64_t kContext = 256;
constexpr std::array<std::int64_t, 15> kSizes{1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256};
constexpr int kRepeats = 9;
constexpr std::size_t kMostKeys = 64;  // a file that has more is begun afresh
constexpr std::size_t kMostBytes = 1 << 20;
constexpr int kFormat = 1;
constexpr int kWindow = 256, kLeastSeen = 12;  // passes; of one size, for its median to count
constexpr double kDisagree = 0.22;             // log(1.25)

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::string processor() {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);)
        if (line.starts_with("model name")) return line.substr(std::min(line.find(':') + 2, line.size()));
    return "unknown processor";
}

bool plausible(const std::vector<PassTime>& times) {
    for (std::size_t i = 0; i < times.size(); ++i)
        if (times[i].rows < 1 || !(times[i].seconds > 0) || !std::isfinite(times[i].seconds) ||
            (i > 0 && times[i].rows <= times[i - 1].rows))
            return false;
    return !times.empty();
}

/// Neighbours that fall share their mean (pool adjacent violators).
void never_falling(std::vector<PassTime>& times) {
    std::vector<std::pair<double, std::size_t>> pools;  // mean, how many
    for (const PassTime& time : times) {
        pools.emplace_back(time.seconds, 1);
        while (pools.size() > 1 && pools[pools.size() - 2].first > pools.back().first) {
            const auto [mean, count] = pools.back();
            pools.pop_back();
            auto& [before, many] = pools.back();
            before = (before * double(many) + mean * double(count)) / double(many + count), many += count;
        }
    }
    std::size_t at = 0;
    for (const auto& [mean, count] : pools)
        for (std::size_t i = 0; i < count; ++i) times[at++].seconds = mean;
}

/// The whole file; an empty one when it is none of ours.
Json read_all(const std::filesystem::path& file) {
    const Json fresh = {{"version", kFormat}, {"passes", Json::object()}};
    std::error_code error;
    if (file.empty() || std::filesystem::file_size(file, error) > kMostBytes || error) return fresh;
    std::ifstream in(file, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    Json all = Json::parse(text, nullptr, false);
    const bool ours = all.is_object() && all.contains("version") && all["version"] == kFormat &&
                      all.contains("passes") && all["passes"].is_object();
    return ours ? all : fresh;
}

}  // namespace

std::vector<PassTime> measure_pass_times(const LlamaModel& model, TargetPass& pass, double seconds) {
    const at::NoGradGuard no_grad;
    const std::int64_t room = model.config().context, context = std::min(kContext, room / 2);
    const std::vector<TokenId> tokens(static_cast<std::size_t>(kSizes.back()), TokenId{0});
    KvCache cache = pass.make_cache();
    const auto forward = [&](std::int64_t rows) {
        const RowSegment segment{
            .cache = &cache, .tokens = std::span(tokens).first(static_cast<std::size_t>(rows)), .parents = {}};
        const double start = now();
        const PassOutput output = pass.forward(std::span(&segment, 1), true);
        if (!model.device().is_cpu()) (void)output.logits.sum().item<float>();  // waits for the device
        return now() - start;
    };
    const double start = now();
    const auto spent = [&](double share) { return now() - start > share * seconds; };
    cache.reserve(context + 1);
    while (cache.committed() < context) {  // real keys and values: their kind decides how fast arithmetic is
        const std::int64_t rows = std::min<std::int64_t>(context - cache.committed(), 64);
        cache.reserve(rows);
        forward(rows);
        cache.append(rows);
        if (spent(0.15)) break;
    }
    std::vector<PassTime> times;
    std::vector<std::vector<double>> seen;
    forward(1);
    for (const std::int64_t rows : kSizes) {
        if (cache.committed() + rows >= room) break;
        if (times.size() >= 2) {  // what this size would take, by the last one
            const double next = times.back().seconds * double(rows) / double(times.back().rows);
            if (now() - start + next > 0.5 * seconds) break;
        }
        cache.reserve(rows);
        times.push_back({rows, forward(rows)});
        seen.push_back({times.back().seconds});
    }
    // Again and again over all sizes: a moment in which the machine is busy meets each at most once.
    for (int i = 1; i < kRepeats && !spent(1.0); ++i)
        for (std::size_t s = 0; s < times.size(); ++s) {
            if (now() - start + times[s].seconds > seconds) break;
            seen[s].push_back(forward(times[s].rows));
        }
    for (std::size_t s = 0; s < times.size(); ++s) {
        std::sort(seen[s].begin(), seen[s].end());
        times[s].seconds = seen[s][seen[s].size() / 2];
    }
    never_falling(times);
    return times;
}

std::string pass_times_key(const LlamaModel& model) {
    const bool cpu = model.device().is_cpu();
    return fmt::format("{} | {} | {} | {} threads | {}", model.fingerprint(), model.weights_description(),
                       cpu ? fmt::format("{}, {}", processor(), name(active_isa())) : model.device().str(),
                       cpu ? model.threads() : 0, kVersion);
}

std::filesystem::path default_pass_times_file() {
    const auto set = [](const char* name) {
        const char* value = std::getenv(name);
        return value != nullptr && *value != '\0' ? std::filesystem::path(value) : std::filesystem::path();
    };
    const std::filesystem::path cache = set("XDG_CACHE_HOME"), home = set("HOME");
    if (cache.is_absolute()) return cache / "outrider" / "pass_times.json";
    return home.is_absolute() ? home / ".cache" / "outrider" / "pass_times.json" : std::filesystem::path();
}

std::optional<std::vector<PassTime>> read_pass_times(const std::filesystem::path& file, std::string_view key) {
    const Json all = read_all(file);
    const auto found = all["passes"].find(std::string(key));
    if (found == all["passes"].end() || !found->is_array()) return {};
    std::vector<PassTime> times;
    for (const Json& pair : *found) {
        if (!pair.is_array() || pair.size() != 2 || !pair[0].is_number_integer() || !pair[1].is_number()) return {};
        times.push_back({pair[0].get<std::int64_t>(), pair[1].get<double>()});
    }
    if (!plausible(times)) return {};
    return times;
}

bool write_pass_times(const std::filesystem::path& file, std::string_view key, const std::vector<PassTime>& times) {
    if (file.empty() || !plausible(times)) return false;
    Json all = read_all(file);
    if (all["passes"].size() >= kMostKeys) all["passes"] = Json::object();
    Json list = Json::array();
    for (const PassTime& t : times) list.push_back({t.rows, t.seconds});
    all["passes"][std::string(key)] = std::move(list);
    std::error_code error;
    std::filesystem::create_directories(file.parent_path(), error);
    std::filesystem::path fresh = file;
    fresh += fmt::format(".{:08x}", std::random_device{}());
    {
        std::ofstream out(fresh, std::ios::binary);
        out << all.dump(1, ' ', false, Json::error_handler_t::replace) << '\n';
        out.close();
        if (!out) {
            std::filesystem::remove(fresh, error);
            return false;
        }
    }
    std::filesystem::rename(fresh, file, error);
    if (!error) return true;
    std::error_code ignored;
    std::filesystem::remove(fresh, ignored);
    return false;
}

PassTimesWatch::PassTimesWatch(std::vector<PassTime> table) : table_(std::move(table)), seen_(table_.size()) {}

bool PassTimesWatch::saw(std::int64_t rows, double seconds) {
    if (table_.empty() || !(seconds > 0) || rows < table_.front().rows || rows > table_.back().rows) return false;
    const auto at_least = [](const PassTime& t, std::int64_t n) { return t.rows < n; };
    const auto upper = std::lower_bound(table_.begin(), table_.end(), rows, at_least);
    double expected = upper->seconds;
    auto nearest = static_cast<std::size_t>(upper - table_.begin());
    if (upper->rows != rows) {
        const PassTime &a = upper[-1], &b = *upper;
        const double share = double(rows - a.rows) / double(b.rows - a.rows);
        expected = a.seconds + share * (b.seconds - a.seconds);
        if (share < 0.5) --nearest;
    }
    seen_[nearest].push_back(std::log(seconds / expected));
    if (++passes_ < kWindow) return false;
    passes_ = 0;
    const std::vector<std::optional<double>> found = differences();
    const auto near = [](const std::optional<double>& d) { return std::abs(d.value_or(0.0)) < kDisagree; };
    const bool agrees = std::all_of(found.begin(), found.end(), near);
    disagreed_ = agrees ? 0 : disagreed_ + 1;
    if (disagreed_ < 2) return false;
    disagreed_ = 0;
    correct(found);
    return true;
}

/// The window's medians, of sizes that were seen often enough; the next window begins.
std::vector<std::optional<double>> PassTimesWatch::differences() {
    std::vector<std::optional<double>> medians(seen_.size());
    for (std::size_t i = 0; i < seen_.size(); ++i) {
        std::vector<double>& all = seen_[i];
        if (all.size() >= kLeastSeen) {
            std::nth_element(all.begin(), all.begin() + std::ssize(all) / 2, all.end());
            medians[i] = all[all.size() / 2];
        }
        all.clear();
    }
    return medians;
}

void PassTimesWatch::correct(const std::vector<std::optional<double>>& differences) {
    std::vector<std::size_t> known;
    for (std::size_t i = 0; i < differences.size(); ++i)
        if (differences[i]) known.push_back(i);
    for (const std::size_t i : known) table_[i].seconds *= std::exp(*differences[i]);
    for (std::size_t i = 0; i < table_.size(); ++i) {
        if (differences[i]) continue;
        double& seconds = table_[i].seconds;
        const auto next = std::lower_bound(known.begin(), known.end(), i);
        if (next == known.end() || next == known.begin()) {
            seconds *= std::exp(*differences[next == known.end() ? known.back() : *next]);
            continue;
        }
        const std::size_t a = next[-1], b = *next;
        const double share = double(i - a) / double(b - a);
        seconds *= std::exp(*differences[a] + (*differences[b] - *differences[a]) * share);
        const auto [least, most] = std::minmax(table_[a].seconds, table_[b].seconds);
        seconds = std::clamp(seconds, least, most);
    }
    never_falling(table_);
}

}  // namespace outrider

#include <outrider/target/detail/pass_times.hpp>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <system_error>

#include <ATen/core/grad_mode.h>

#include <outrider/budget/detail/sweeps.hpp>
#include <outrider/core/detail/clock.hpp>
#include <outrider/core/detail/cores.hpp>
#include <outrider/core/detail/version.hpp>
#include "cuda_module.hpp"
#include "kernels/isa.hpp"
#include <outrider/core/detail/thread_team.hpp>

namespace outrider {
namespace {

using Json = nlohmann::json;

constexpr std::int64_t kContext = 256, kCheckedContext = 64;
constexpr std::array<std::int64_t, 9> kSmall{1, 2, 3, 4, 5, 6, 8, 12, 16};  // one draft's, swept again and again
constexpr std::array<std::int64_t, 9> kLarge{16, 24, 32, 48, 64, 96, 128, 192, 256};  // a batch's
constexpr std::array<std::int64_t, 5> kChecked{1, 2, 4, 8, 16};
constexpr double kLeastPasses = 20;    // of one row that measuring may take of a large model, whatever the time given
constexpr std::size_t kMostKeys = 64;  // a file that has more is begun afresh
constexpr std::size_t kMostBytes = 1 << 20;
constexpr int kFormat = 1;

bool plausible(const std::vector<PassTime>& times) {
    for (std::size_t i = 0; i < times.size(); ++i)
        if (times[i].rows < 1 || !(times[i].seconds > 0) || !std::isfinite(times[i].seconds) ||
            (i > 0 && times[i].rows <= times[i - 1].rows))
            return false;
    return !times.empty();
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

namespace {

/// Forwards of any size over a context of real keys and values: their kind decides how fast arithmetic is.
class Stopwatch {
public:
    /// The context is shorter where reading it would go on after `until`: of a large model a pass is its weights.
    Stopwatch(const LlamaModel& model, TargetPass& pass, std::int64_t context, double until)
        : model_(model),
          pass_(pass),
          cache_(pass.make_cache()),
          tokens_(static_cast<std::size_t>(kLarge.back()), TokenId{0}) {
        const std::int64_t wanted = std::min(context, model.config().context / 2);
        for (std::int64_t rows = 8; cache_.committed() < wanted && now_seconds() < until; rows = 64) {
            rows = std::min(wanted - cache_.committed(), rows);
            (void)forward(rows, PassFor::features);
            cache_.append(rows);
        }
    }

    [[nodiscard]] double seconds(std::int64_t rows) {
        const double start = now_seconds();
        const PassOutput output = forward(rows, PassFor::choices);               // as greedy rounds do
        if (!model_.device().is_cpu()) (void)output.logits.sum().item<float>();  // waits for the device
        return now_seconds() - start;
    }

    [[nodiscard]] bool fits(std::int64_t rows) const { return cache_.committed() + rows < model_.config().context; }

private:
    [[nodiscard]] PassOutput forward(std::int64_t rows, PassFor use) {
        cache_.reserve(rows);
        const RowSegment segment{
            .cache = &cache_, .tokens = std::span(tokens_).first(static_cast<std::size_t>(rows)), .parents = {}};
        return pass_.forward(std::span(&segment, 1), use);
    }

    const LlamaModel& model_;
    TargetPass& pass_;
    KvCache cache_;
    std::vector<TokenId> tokens_;
};

/// Of the sizes that the model's context holds.
budget::Sweeps sweep(Stopwatch& watch, std::span<const std::int64_t> sizes, const budget::SweepTime& time) {
    while (!sizes.empty() && !watch.fits(sizes.back())) sizes = sizes.first(sizes.size() - 1);
    return budget::run_sweeps(sizes, time, now_seconds, [&](std::int64_t rows) { return watch.seconds(rows); });
}

}  // namespace

MeasuredPasses measure_pass_times(const LlamaModel& model, TargetPass& pass, double seconds) {
    const at::NoGradGuard no_grad;
    const double start = now_seconds();
    Stopwatch watch(model, pass, kContext, start + 0.2 * seconds);
    const budget::Sweeps small = sweep(watch, kSmall, {.until = start + 0.7 * seconds, .passes = kLeastPasses});
    MeasuredPasses measured{small.table(), small.steady()};
    if (measured.times.empty() || measured.times.back().rows != kLarge.front()) return measured;
    const budget::Sweeps large = sweep(watch, kLarge, {.until = start + 0.85 * seconds, .enough = 3, .most = 3});
    const std::vector<PassTime> more = large.table();
    if (more.size() < 2) return measured;
    // The two kinds of sweeps meet in one size.
    const double scale = measured.times.back().seconds / more.front().seconds;
    for (const PassTime& t : std::span(more).subspan(1)) measured.times.push_back({t.rows, scale * t.seconds});
    return measured;
}

bool agrees_with_passes(const std::vector<PassTime>& table, const LlamaModel& model, TargetPass& pass) {
    const at::NoGradGuard no_grad;
    const double start = now_seconds();
    Stopwatch watch(model, pass, kCheckedContext, start + 0.1);
    const budget::Sweeps sweeps = sweep(watch, kChecked, {.until = start + 0.35, .enough = 3, .most = 5});
    // A busy moment cannot refute what was measured in a quiet one.
    return sweeps.agrees(table) || !sweeps.steady();
}

std::string pass_times_key(const LlamaModel& model) {
    const bool cpu = model.device().is_cpu();
    return fmt::format("{} | {} | {} | {} threads | {}", model.fingerprint(), model.weights_description(),
                       cpu ? fmt::format("{}, {}", detail::processor_name(), name(active_isa())) : card(model.device()),
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

}  // namespace outrider

#include <outrider/draft/published_heads.hpp>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <optional>
#include <set>
#include <string_view>

#include <outrider/core/error.hpp>
#include <outrider/io/named_tensors.hpp>

namespace outrider {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMedusaPrefix = "medusa_head.", kPrefixLayer = "prefix_embeding_layer.";

/// The config.json beside the weights; an empty object where there is none.
nlohmann::json hints_of(const fs::path& path) {
    std::ifstream in((fs::is_directory(path) ? path : path.parent_path()) / "config.json");
    nlohmann::json file = nlohmann::json::parse(in, nullptr, false);
    return file.is_object() ? file : nlohmann::json::object();
}

NamedTensors open_heads(const fs::path& path) {
    if (fs::is_directory(path))
        for (const char* name :
             {"medusa_lm_head.safetensors", "medusa_lm_head.pt", "hydra_lm_head.safetensors", "hydra_lm_head.pt"})
            if (fs::exists(path / name)) return NamedTensors::open(path / name);
    return NamedTensors::open(path);
}

/// Takes tensors by name and knows at the end which were never asked for.
class Taker {
public:
    explicit Taker(const NamedTensors& file, std::string_view prefix) : file_(&file) {
        for (const std::string& name : file.names())
            if (name.starts_with(prefix)) left_.insert(name);
    }

    /// In the file's own type where that is a real one of 16 bits, else float32.
    at::Tensor operator()(const std::string& name) {
        require(file_->has(name), "{}: tensor {} is missing", file_->name(), name);
        left_.erase(name);
        const SafeTensor& tensor = file_->tensor(name);
        if (tensor.dtype != SafeDtype::f16 && tensor.dtype != SafeDtype::bf16) {
            at::Tensor out = at::empty(tensor.shape, at::kFloat);
            to_floats(tensor, {out.mutable_data_ptr<float>(), static_cast<std::size_t>(out.numel())});
            return out;
        }
        at::Tensor out = at::empty(tensor.shape, tensor.dtype == SafeDtype::f16 ? at::kHalf : at::kBFloat16);
        std::memcpy(out.mutable_data_ptr(), tensor.data.data(), tensor.data.size());
        return out;
    }

    void ignore(const std::string& name) { left_.erase(name); }
    [[nodiscard]] bool has(const std::string& name) const { return file_->has(name); }
    [[nodiscard]] const std::string& file() const { return file_->name(); }

    void finish() const {
        require(left_.empty(), "{}: tensor {} is unknown; this is not a checkpoint of a known form", file_->name(),
                left_.empty() ? "" : *left_.begin());
    }

private:
    const NamedTensors* file_;
    std::set<std::string> left_;
};

/// The numbers at the front of a name behind `prefix`: "3.0.linear.weight" gives {3, 0} of at most `most`.
std::vector<std::int64_t> numbers_of(std::string_view name, std::string_view prefix, std::size_t most) {
    std::vector<std::int64_t> numbers;
    if (!name.starts_with(prefix)) return numbers;
    const char *at = name.data() + prefix.size(), *end = name.data() + name.size();
    while (numbers.size() < most && at < end) {
        std::int64_t number = 0;
        const auto result = std::from_chars(at, end, number);
        if (result.ec != std::errc{} || number < 0 || result.ptr == end || *result.ptr != '.') break;
        numbers.push_back(number);
        at = result.ptr + 1;
    }
    return numbers;
}

/// Largest first and second number of the names behind `prefix` that end in `suffix`; -1: none.
std::pair<std::int64_t, std::int64_t> extent(const NamedTensors& file, std::string_view prefix,
                                             std::string_view suffix) {
    std::pair<std::int64_t, std::int64_t> most{-1, -1};
    for (const std::string& name : file.names()) {
        const auto numbers = numbers_of(name, prefix, 2);
        if (numbers.size() < 2 || !name.ends_with(suffix)) continue;
        most = {std::max(most.first, numbers[0]), std::max(most.second, numbers[1])};
    }
    return most;
}

std::string_view medusa_prefix(const NamedTensors& file) {
    const std::vector<std::string> names = file.names();
    const bool whole = std::any_of(names.begin(), names.end(),
                                   [](const std::string& name) { return name.starts_with(kMedusaPrefix); });
    return whole ? kMedusaPrefix : std::string_view{};
}

/// rate[i] = theta^(-i / n) may be rounded to 16 bits; thetas are round numbers, so two digits are enough. The last rate
/// is the one that says them best.
double theta_of(const at::Tensor& rate) {
    const auto n = static_cast<double>(rate.numel());
    const double theta = std::pow(rate[-1].item<double>(), -n / (n - 1));
    const double unit = std::pow(10.0, std::floor(std::log10(theta)) - 1);
    const double two_digits = std::round(theta / unit) * unit;
    return std::abs(theta - two_digits) < 0.01 * theta ? two_digits : theta;
}

/// Sizes of the prefix layer that its tensors do not tell: from its rotary buffer, else from config.json.
void take_rotation(Taker& take, const nlohmann::json& hints, std::int64_t query_rows, HydraConfig& config) {
    const std::string name = std::string(kPrefixLayer) + "layers.0.self_attn.rotary_emb.inv_freq";
    config.rope_theta = hints.value("rope_theta", 10000.0);
    if (take.has(name)) {
        const at::Tensor rate = take(name).to(at::kDouble);
        config.head_dim = 2 * rate.numel();
        if (!hints.contains("rope_theta") && rate.numel() > 1) config.rope_theta = theta_of(rate);
    } else {
        const auto heads = hints.value("num_attention_heads", std::int64_t{0});
        require(
            heads > 0 && query_rows % heads == 0,
            "{}: tensor {} is missing, and config.json gives no num_attention_heads that divides {}; one of them must "
            "say how wide an attention head is",
            take.file(), name, query_rows);
        config.head_dim = query_rows / heads;
    }
    require(config.head_dim > 0 && query_rows % config.head_dim == 0, "{}: heads of width {} do not divide {}",
            take.file(), config.head_dim, query_rows);
}

void take_prefix_layer(Taker& take, const nlohmann::json& hints, HydraConfig& config, HydraWeights& weights) {
    const std::string layer = std::string(kPrefixLayer) + "layers.0.";
    const auto part = [&](const char* name) { return take(layer + name + ".weight"); };
    const at::Tensor q = part("self_attn.q_proj"), k = part("self_attn.k_proj"), v = part("self_attn.v_proj");
    const at::Tensor gate = part("mlp.gate_proj"), up = part("mlp.up_proj");
    for (const at::Tensor& w : {q, k, v, gate, up})
        require(w.dim() == 2 && w.size(1) == config.hidden, "{}: a matrix of {} has another width than {}", take.file(),
                layer, config.hidden);
    weights.prefix = {part("input_layernorm"),          at::cat({q, k, v}),  part("self_attn.o_proj"),
                      part("post_attention_layernorm"), at::cat({gate, up}), part("mlp.down_proj")};
    weights.prefix_norm = take(std::string(kPrefixLayer) + "norm.weight");
    take_rotation(take, hints, q.size(0), config);
    config.prefix_layer = true;
    config.attention_heads = q.size(0) / config.head_dim;
    config.kv_heads = k.size(0) / config.head_dim;
    config.intermediate = gate.size(0);
    config.norm_eps = hints.value("rms_norm_eps", 1e-6);             // Vicuna's, where the file does not say
    take.ignore(std::string(kPrefixLayer) + "embed_tokens.weight");  // never used by the published code
}

}  // namespace

bool is_published(const fs::path& path) {
    std::error_code error;
    if (fs::is_regular_file(path, error)) return true;
    if (!fs::exists(path / "config.json", error)) return fs::is_directory(path, error) && !fs::is_empty(path, error);
    std::ifstream in(path / "config.json");
    const nlohmann::json file = nlohmann::json::parse(in, nullptr, false);
    return file.is_object() && !file.contains("kind");
}

std::string published_kind(const fs::path& path) {
    std::optional<NamedTensors> file;
    try {
        file.emplace(open_heads(path));
    } catch (const Error&) {
        return "";  // no weights of any form here
    }
    for (const std::string& name : file->names())
        if (name.starts_with("hydra_mlp.")) return "hydra";
    return extent(*file, medusa_prefix(*file), ".linear.weight").first >= 0 ? "medusa" : "";
}

std::pair<MedusaConfig, MedusaWeights> read_published_medusa(const fs::path& path) {
    const NamedTensors file = open_heads(path);
    const std::string prefix(medusa_prefix(file));
    Taker take(file, prefix);
    const auto [last_head, last_block] = extent(file, prefix, ".linear.weight");
    require(last_head >= 0, "{}: no tensor named {}0.0.linear.weight; this holds no Medusa heads", file.name(), prefix);
    MedusaConfig config;
    MedusaWeights weights;
    config.heads = last_head + 1, config.blocks = last_block + 1;
    check_medusa_config([&] {  // before anything is made of that size
        MedusaConfig sizes = config;
        sizes.hidden = 1;
        return sizes;
    }());
    bool own = false;
    for (std::int64_t i = 0; i < config.heads; ++i)
        own = own || file.has(fmt::format("{}{}.{}.weight", prefix, i, config.blocks));
    config.output = own ? HeadOutput::own : HeadOutput::target;
    for (std::int64_t i = 0; i < config.heads; ++i) {
        weights.heads.emplace_back();
        for (std::int64_t j = 0; j < config.blocks; ++j)
            weights.heads.back().push_back({take(fmt::format("{}{}.{}.linear.weight", prefix, i, j)),
                                            take(fmt::format("{}{}.{}.linear.bias", prefix, i, j))});
        if (own) weights.output.push_back(take(fmt::format("{}{}.{}.weight", prefix, i, config.blocks)));
    }
    take.finish();
    config.hidden = weights.heads[0][0].weight.size(-1);
    config.target_name = hints_of(path).value("base_model_name_or_path", std::string("published heads"));
    check_medusa_config(config);
    check_medusa_weights(config, weights);
    return {std::move(config), std::move(weights)};
}

std::pair<HydraConfig, HydraWeights> read_published_hydra(const fs::path& path) {
    const NamedTensors file = open_heads(path);
    const nlohmann::json hints = hints_of(path);
    const auto offset = hints.value("hidden_state_offset", std::int64_t{0});
    require(offset == 0,
            "{}: hidden_state_offset is {}; heads over features of another layer than the last are not "
            "supported",
            file.name(), offset);
    Taker take(file, "");
    const auto [last_head, last_place] = extent(file, "hydra_mlp.", ".linear.weight");
    require(last_head >= 0, "{}: no tensor named hydra_mlp.0.*.linear.weight; this holds no Hydra heads", file.name());
    // With dropout in between, blocks are at 1, 3, 5, ... and the output at 1.
    const bool dropout = !file.has("hydra_mlp.0.0.linear.weight");
    HydraConfig config;
    HydraWeights weights;
    config.heads = last_head + 1, config.blocks = dropout ? (last_place + 1) / 2 : last_place + 1;
    require(config.heads <= 64 && config.blocks > 0 && config.blocks <= 64,
            "{}: {} heads of {} blocks, expected 1 to 64 of each", file.name(), config.heads, config.blocks);
    config.residual = HydraResidual::matrix, config.output = HeadOutput::own;
    config.output_bias = file.has(dropout ? "hydra_lm_head.0.1.bias" : "hydra_lm_head.0.bias");
    for (std::int64_t i = 0; i < config.heads; ++i) {
        weights.heads.emplace_back();
        for (std::int64_t j = 0; j < config.blocks; ++j) {
            const std::string base = fmt::format("hydra_mlp.{}.{}.", i, dropout ? 2 * j + 1 : j);
            HydraWeights::Block block{take(base + "linear.weight"), take(base + "linear.bias"), {}, {}};
            if (j == 0)
                block.residual = take(base + "res_connection.weight"),
                block.residual_bias = take(base + "res_connection.bias");
            weights.heads.back().push_back(std::move(block));
        }
        const std::string base = fmt::format("hydra_lm_head.{}.{}", i, dropout ? "1." : "");
        weights.output.push_back(take(base + "weight"));
        if (config.output_bias) weights.output_bias.push_back(take(base + "bias"));
    }
    config.hidden = weights.heads[0][0].weight.size(0);
    const std::vector<std::string> names = file.names();
    if (std::any_of(names.begin(), names.end(), [](const std::string& name) { return name.starts_with(kPrefixLayer); }))
        take_prefix_layer(take, hints, config, weights);
    take.ignore("input_embed_fn.weight");  // a copy of the target's embeddings
    take.finish();
    config.target_name = hints.value("base_model_name_or_path", std::string("published heads"));
    check_hydra_config(config);
    check_hydra_weights(config, weights);
    return {std::move(config), std::move(weights)};
}

}  // namespace outrider

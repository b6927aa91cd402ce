// A CTC drafter's folder: config.json and model.safetensors.
#include <nlohmann/json.hpp>

#include <fstream>

#include <outrider/core/error.hpp>
#include <outrider/draft/ctc_config.hpp>
#include <outrider/draft/ctc_network.hpp>
#include <outrider/io/safetensors.hpp>

namespace outrider {

namespace {

using nlohmann::json;

CtcConfig from_json(const json& file) {
    CtcConfig config;
    require(file.at("kind") == "ctc", "kind is {}, expected \"ctc\"", file.at("kind").dump());
    require(file.at("version") == CtcConfig::kVersion, "version is {}, this library reads {}",
            file.at("version").dump(), CtcConfig::kVersion);
    const json& sizes = file.at("sizes");
    config.hidden = sizes.at("hidden").get<std::int64_t>();
    config.heads = sizes.at("heads").get<std::int64_t>();
    config.kv_heads = sizes.at("kv_heads").get<std::int64_t>();
    config.head_dim = sizes.at("head_dim").get<std::int64_t>();
    config.intermediate = sizes.at("intermediate").get<std::int64_t>();
    config.frames = sizes.at("frames").get<std::int64_t>();
    config.prefix_rank = sizes.at("prefix_rank").get<std::int64_t>();
    const auto conditioning = file.at("conditioning").get<std::string>();
    require(conditioning == "none" || conditioning == "prefix",
            "conditioning is \"{}\", expected \"none\" or \"prefix\"", conditioning);
    config.conditioning = conditioning == "prefix" ? CtcConditioning::prefix : CtcConditioning::none;
    config.rope_theta = file.at("rope_theta").get<double>();
    config.norm_eps = file.at("norm_eps").get<double>();
    config.embedding_scale = file.at("embedding_scale").get<double>();
    config.feature_scale = file.at("feature_scale").get<double>();
    config.target_fingerprint = file.at("target").at("fingerprint").get<std::string>();
    config.target_name = file.at("target").at("name").get<std::string>();
    config.vocabulary = file.at("vocabulary").get<std::vector<TokenId>>();
    config.training = file.value("training", json::object()).dump();
    check_ctc_config(config);
    return config;
}

}  // namespace

void check_ctc_config(const CtcConfig& config) {
    const std::int64_t most = 1 << 20;  // beyond any model; keeps products of sizes in range
    const auto check = [most](const char* name, std::int64_t value) {
        require(value > 0 && value <= most, "CTC drafter: {} is {}, expected 1 to {}", name, value, most);
    };
    check("hidden", config.hidden);
    check("heads", config.heads);
    check("kv_heads", config.kv_heads);
    check("head_dim", config.head_dim);
    check("intermediate", config.intermediate);
    check("frames", config.frames);
    require(config.frames <= 64, "CTC drafter: {} frames, at most 64", config.frames);
    if (config.conditioning == CtcConditioning::prefix) check("prefix_rank", config.prefix_rank);
    require(config.heads % config.kv_heads == 0, "CTC drafter: {} heads cannot share {} key heads", config.heads,
            config.kv_heads);
    require(config.head_dim % 2 == 0, "CTC drafter: head_dim is {}, rotary positions need an even number",
            config.head_dim);
    require(!config.vocabulary.empty(), "CTC drafter: the draft vocabulary is empty");
    for (std::size_t i = 0; i < config.vocabulary.size(); ++i)
        require(config.vocabulary[i] >= 0 && (i == 0 || config.vocabulary[i] > config.vocabulary[i - 1]),
                "CTC drafter: the draft vocabulary must be ascending token ids; entry {} is {}", i,
                config.vocabulary[i]);
}

CtcConfig read_ctc_config(const std::filesystem::path& folder) {
    const std::filesystem::path path = folder / "config.json";
    std::ifstream file(path);
    require(file.good(), "{}: cannot be read; a drafter is a folder with config.json and model.safetensors",
            path.string());
    try {
        return from_json(json::parse(file));
    } catch (const std::exception& error) {
        fail("{}: {}", path.string(), error.what());
    }
}

void write_ctc_config(const std::filesystem::path& folder, const CtcConfig& config) {
    std::filesystem::create_directories(folder);
    const nlohmann::ordered_json file = {
        {"kind", "ctc"},
        {"version", CtcConfig::kVersion},
        {"target", {{"name", config.target_name}, {"fingerprint", config.target_fingerprint}}},
        {"conditioning", config.conditioning == CtcConditioning::prefix ? "prefix" : "none"},
        {"sizes",
         {{"hidden", config.hidden},
          {"heads", config.heads},
          {"kv_heads", config.kv_heads},
          {"head_dim", config.head_dim},
          {"intermediate", config.intermediate},
          {"frames", config.frames},
          {"prefix_rank", config.prefix_rank}}},
        {"rope_theta", config.rope_theta},
        {"norm_eps", config.norm_eps},
        {"embedding_scale", config.embedding_scale},
        {"feature_scale", config.feature_scale},
        {"training", nlohmann::ordered_json::parse(config.training)},
        {"vocabulary", config.vocabulary}};
    const std::filesystem::path path = folder / "config.json", part = folder / "config.json.part";
    std::ofstream stream(part);
    // One list on one line: thousands of ids, one a line, would bury the rest.
    auto head = file;
    head.erase("vocabulary");
    std::string text = head.dump(2);
    text.resize(text.size() - 2);
    stream << text << ",\n  \"vocabulary\": " << nlohmann::json(config.vocabulary).dump() << "\n}\n";
    stream.close();
    require(stream.good(), "{}: cannot be written", part.string());
    std::filesystem::rename(part, path);
}

CtcWeights read_ctc_weights(const std::filesystem::path& folder, const CtcConfig& config) {
    const SafeTensors file = SafeTensors::open(folder / "model.safetensors");
    CtcWeights weights;
    // Defined ones are listed by named(); start with all of them.
    const bool prefix = config.conditioning == CtcConditioning::prefix;
    for (at::Tensor* w :
         {&weights.fuse, &weights.attn_norm, &weights.qkv, &weights.attn_out, &weights.mlp_norm, &weights.gate_up,
          &weights.down, &weights.queries, &weights.final_norm, &weights.blank, &weights.blank_bias})
        *w = at::empty({0});
    if (prefix)
        weights.prefix_in = at::empty({0}), weights.prefix_bias = at::empty({0}), weights.prefix_out = at::empty({0});
    const auto wanted = weights.named();
    for (const auto& [name, weight] : wanted) {
        require(file.has(name), "{}: weight {} is missing", file.name(), name);
        const SafeTensor& tensor = file.tensor(name);
        *weight = at::empty(tensor.shape, at::TensorOptions().dtype(at::kFloat));
        to_floats(tensor, {weight->mutable_data_ptr<float>(), static_cast<std::size_t>(weight->numel())});
    }
    require(file.tensors().size() == wanted.size(), "{}: {} weights, a CTC drafter of this kind has {}", file.name(),
            file.tensors().size(), wanted.size());
    check_ctc_weights(config, weights);
    return weights;
}

void write_ctc_weights(const std::filesystem::path& folder, const CtcWeights& weights) {
    std::filesystem::create_directories(folder);
    std::vector<at::Tensor> kept;
    std::vector<SafeTensorView> views;
    for (const auto& [name, weight] : weights.named()) {
        kept.push_back(weight->detach().to(at::kCPU, at::kBFloat16).contiguous());
        views.push_back({name,
                         SafeDtype::bf16,
                         kept.back().sizes().vec(),
                         {static_cast<const std::byte*>(kept.back().const_data_ptr()),
                          static_cast<std::size_t>(kept.back().nbytes())}});
    }
    write_safetensors(folder / "model.safetensors", views, {{"format", "pt"}, {"kind", "ctc"}});
}

}  // namespace outrider

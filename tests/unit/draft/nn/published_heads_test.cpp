// Published checkpoints as they are: every head's logits against plain PyTorch's, and damaged files refused by name.
#include <ATen/ATen.h>

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <outrider/core/error.hpp>
#include <outrider/draft/hydra/detail/published_hydra.hpp>
#include <outrider/draft/hydra/hydra_draft.hpp>
#include <outrider/draft/medusa/detail/published_medusa.hpp>
#include <outrider/draft/medusa/medusa_draft.hpp>
#include <outrider/draft/nn/detail/published_heads.hpp>
#include <outrider/formats/detail/named_tensors.hpp>
#include "../../temporary_folder.hpp"
#include <outrider/tree/token_tree.hpp>

using namespace outrider;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

namespace fs = std::filesystem;

const fs::path kGolden = OUTRIDER_SOURCE_DIR "/tests/golden/heads";

/// What plain PyTorch made of a checkpoint.
struct Expected {
    at::Tensor features, tokens, embedding, output, logits;

    explicit Expected(const std::string& name) {
        const SafeTensors file = SafeTensors::open(kGolden / name / "expected.safetensors");
        const auto read = [&](const char* key) {
            const SafeTensor& tensor = file.tensor(key);
            at::Tensor out = at::empty(tensor.shape, at::kFloat);
            to_floats(tensor, {out.mutable_data_ptr<float>(), static_cast<std::size_t>(out.numel())});
            return out;
        };
        features = read("features"), tokens = read("tokens").to(at::kLong), embedding = read("embedding");
        output = read("output"), logits = read("logits");
    }

    [[nodiscard]] TargetHead head() const {
        const auto rows = [](at::Tensor table) {
            return [table](std::span<const TokenId> ids) {
                return table.index_select(0, at::tensor(std::vector<std::int64_t>(ids.begin(), ids.end()), at::kLong));
            };
        };
        TargetHead head;
        head.fingerprint = "any", head.hidden = features.size(1), head.vocabulary = output.size(0);
        head.embed = rows(embedding), head.output_rows = rows(output);
        head.final_norm = at::ones({head.hidden});
        return head;
    }

    /// All of the features, and tokens[0] pending.
    [[nodiscard]] SequenceFeedback feedback() const {
        return {1, std::vector<TokenId>(static_cast<std::size_t>(features.size(0)), 0), features,
                static_cast<TokenId>(tokens[0].item<std::int64_t>()), features.size(0)};
    }
};

template <typename Weights>
Weights in_float(Weights weights) {
    for (auto& [name, weight] : weights.named()) *weight = weight->to(at::kFloat);
    return weights;
}

void check_logits(const at::Tensor& got, const at::Tensor& expected) {
    REQUIRE(got.sizes() == expected.sizes());
    const double off = (got - expected).abs().max().item<double>();
    CHECK(off < 1e-4 * expected.abs().max().item<double>());
}

/// The tree's nodes below the root, against the first head's law.
void check_draft(DraftModel& draft, const Expected& expected) {
    const SequenceFeedback feedback = expected.feedback();
    const TokenTree tree = draft.propose(std::span(&feedback, 1), {12})[0].tree;
    REQUIRE(tree.drafted() == 12);
    const at::Tensor first = at::log_softmax(expected.logits[0].to(at::kDouble), -1);
    CHECK(tree.token(1) == static_cast<TokenId>(first.argmax().item<std::int64_t>()));
    for (std::size_t i = 1; i < tree.size(); ++i) {
        if (tree.depths()[i] > 1) continue;
        CHECK(static_cast<double>(tree.log_q()[i]) ==
              Catch::Approx(first[tree.tokens()[i]].item<double>()).margin(1e-3));
    }
}

/// The bytes of a safetensors file with one word in its header replaced by another of the same length.
void write_with(const fs::path& from, const fs::path& to, std::string_view word, std::string_view other) {
    std::ifstream in(from, std::ios::binary);
    std::string bytes((std::istreambuf_iterator<char>(in)), {});
    const std::size_t at = bytes.find(word);
    REQUIRE(at != std::string::npos);
    REQUIRE(word.size() == other.size());
    bytes.replace(at, word.size(), other);
    std::ofstream(to, std::ios::binary) << bytes;
}

}  // namespace

TEST_CASE("published Medusa heads load as they are, head by head") {
    for (const auto& [name, heads, blocks, own] :
         {std::tuple{"medusa_legacy", 3, 1, true}, std::tuple{"medusa_two_blocks", 2, 2, true},
          std::tuple{"medusa_v2", 4, 1, false}, std::tuple{"medusa_whole_model", 2, 1, true}}) {
        INFO(name);
        const Expected expected(name);
        CHECK(is_published(kGolden / name));
        CHECK(published_kind(kGolden / name) == "medusa");
        const auto [config, weights] = read_published_medusa(kGolden / name);
        CHECK(config.heads == heads);  // by the tensors: config.json says 2 heads of 1 block everywhere
        CHECK(config.blocks == blocks);
        CHECK(config.output == (own ? HeadOutput::own : HeadOutput::target));
        CHECK(config.target_name == "toy/base");
        const TargetTables tables{{}, expected.output};
        check_logits(
            medusa_logits(config, in_float(weights), tables, expected.features.slice(0, -1), at::kFloat).squeeze(1),
            expected.logits);
        MedusaDraft draft = MedusaDraft::load(kGolden / name, expected.head(), {.threads = 1, .kernels = false});
        check_draft(draft, expected);
    }
}

TEST_CASE("published Hydra heads load as they are, head by head") {
    for (const auto& [name, heads, blocks, prefix] :
         {std::tuple{"hydra", 3, 2, false}, std::tuple{"hydra_prefix", 3, 4, true},
          std::tuple{"hydra_prefix_no_buffer", 2, 2, true}}) {
        INFO(name);
        const Expected expected(name);
        CHECK(published_kind(kGolden / name) == "hydra");
        const auto [config, stored] = read_published_hydra(kGolden / name);
        const HydraWeights weights = in_float(stored);
        CHECK(config.heads == heads);
        CHECK(config.blocks == blocks);
        CHECK(config.prefix_layer == prefix);
        CHECK(config.output_bias);
        const std::int64_t n = expected.features.size(0);
        std::vector<ContextGroup> groups;
        if (prefix) {
            CHECK(config.head_dim == 16);
            CHECK(config.rope_theta == 10000.0);
            const LayerContext context =
                hydra_context(config, weights, expected.features, at::arange(n, at::kLong), at::kFloat);
            groups.push_back({context.keys, context.values, 1});
        }
        const at::Tensor ground = hydra_ground(config, weights, expected.features.slice(0, n - 1),
                                               at::full({1}, n, at::kLong), groups, at::kFloat);
        const TargetTables tables{expected.embedding, expected.output};
        check_logits(hydra_logits(config, weights, tables, ground, expected.tokens.unsqueeze(0), at::kFloat).squeeze(1),
                     expected.logits);
        HydraDraft draft = HydraDraft::load(kGolden / name, expected.head(), {.threads = 1, .kernels = false});
        check_draft(draft, expected);
    }
}

TEST_CASE("published heads: the file itself, and what is not of that form") {
    const auto refuses = [](auto&& f, const char* words) {
        CHECK_THROWS_MATCHES(f(), Error, MessageMatches(ContainsSubstring(words)));
    };
    CHECK(read_published_medusa(kGolden / "medusa_legacy/medusa_lm_head.pt").first.heads == 3);
    // The formats that the archive reader's own tests hold: more heads, one of them shared blocks.
    const fs::path torch = OUTRIDER_SOURCE_DIR "/tests/golden/torch";
    CHECK(read_published_medusa(torch / "medusa_legacy.pt").first.heads == 5);
    CHECK(read_published_medusa(torch / "medusa_v2.pt").first.output == HeadOutput::target);
    CHECK(read_published_hydra(torch / "hydra_prefix_mlp.pt").first.blocks == 4);
    CHECK(read_published_hydra(torch / "hydra_prefix_mlp.pt").first.rope_theta == 10000.0);  // from rounded rates

    CHECK(published_kind(torch / "views.pt").empty());
    CHECK_THROWS_AS(published_kind(torch / "nowhere.pt"), Error);
    refuses([&] { (void)read_published_medusa(torch / "views.pt"); }, "holds no Medusa heads");
    refuses([&] { (void)read_published_hydra(torch / "medusa_v2.pt"); }, "holds no Hydra heads");

    const test::TemporaryFolder own;
    const fs::path folder = own.path() / "heads";
    fs::create_directories(folder);
    const fs::path medusa = kGolden / "medusa_v2/medusa_lm_head.safetensors",
                   bad = folder / "medusa_lm_head.safetensors";
    write_with(medusa, bad, "\"1.0.linear.bias\"", "\"1.0.linear.sage\"");
    refuses([&] { (void)read_published_medusa(folder); }, "1.0.linear.bias is missing");
    write_with(medusa, bad, "\"3.0.linear.bias\"", "\"3.0.linear.bia_\"");
    refuses([&] { (void)read_published_medusa(folder); }, "3.0.linear.bias is missing");
    write_with(medusa, bad, "\"3.0.linear.weight\"", "\"9.0.linear.weight\"");
    refuses([&] { (void)read_published_medusa(folder); }, "is missing");
    // 32 x 32 as 16 x 64: the product of sizes stays.
    write_with(medusa, bad, "\"shape\":[32,32]", "\"shape\":[16,64]");
    refuses([&] { (void)read_published_medusa(folder); }, "its config asks for");

    fs::remove_all(folder);
    fs::create_directories(folder);
    const fs::path hydra = kGolden / "hydra_prefix_no_buffer/hydra_lm_head.safetensors",
                   spoiled = folder / "hydra_lm_head.safetensors";
    write_with(hydra, spoiled, "input_embed_fn.weight", "input_embed_fn.wei___");
    std::ofstream(folder / "config.json") << R"({"num_attention_heads": 2})";
    refuses([&] { (void)read_published_hydra(folder); }, "input_embed_fn.wei___ is unknown");
    write_with(hydra, spoiled, "layers.0.mlp.down_proj", "layers.0.mlp.dawn_proj");
    refuses([&] { (void)read_published_hydra(folder); }, "mlp.down_proj.weight is missing");
    fs::copy_file(hydra, spoiled, fs::copy_options::overwrite_existing);
    CHECK(read_published_hydra(folder).first.head_dim == 16);
    std::ofstream(folder / "config.json") << "{}";
    refuses([&] { (void)read_published_hydra(folder); }, "num_attention_heads");
    std::ofstream(folder / "config.json") << R"({"num_attention_heads": 2, "hidden_state_offset": 1})";
    refuses([&] { (void)read_published_hydra(folder); }, "hidden_state_offset is 1");
    fs::remove_all(folder);

    // A target of other sizes.
    const Expected expected("medusa_legacy");
    TargetHead other = expected.head();
    other.vocabulary = 40;
    refuses([&] { (void)MedusaDraft::load(kGolden / "medusa_legacy", other); }, "has 48 rows, the target 40 tokens");
    other = expected.head();
    other.hidden = 64;
    refuses([&] { (void)MedusaDraft::load(kGolden / "medusa_legacy", other); }, "made for width 32");
}

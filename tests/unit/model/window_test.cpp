// Sliding-window attention against a plain restatement: one row, one head, one list of keys at a time.
#include <ATen/ATen.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <unistd.h>

#include <outrider/io/safetensors.hpp>
#include <outrider/model/llama_model.hpp>

#include "golden.hpp"

using namespace outrider;
using namespace outrider::testing;
using Backend = LlamaModel::Backend;

namespace {

constexpr std::int64_t kWindow = 5;
constexpr std::int64_t kLength = 40;

/// The small Hugging Face model as a Mistral with a window.
class WindowFolder {
public:
    explicit WindowFolder(std::int64_t window)
        : path_(std::filesystem::temp_directory_path() / fmt::format("outrider-window-{}-{}", window, ::getpid())) {
        std::filesystem::remove_all(path_);
        std::filesystem::copy(kGoldenFolder / "tiny-hf", path_);
        nlohmann::json config = read_json(path_ / "config.json");
        config["model_type"] = "mistral";
        config["sliding_window"] = window;
        std::ofstream(path_ / "config.json") << config.dump();
    }
    ~WindowFolder() { std::filesystem::remove_all(path_); }
    WindowFolder(const WindowFolder&) = delete;
    WindowFolder& operator=(const WindowFolder&) = delete;

    const std::filesystem::path& path() const { return path_; }

private:
    std::filesystem::path path_;
};

/// The forward as it is defined, in f32.
class Restatement {
public:
    explicit Restatement(const LlamaModel& model)
        : c_(model.config()), file_(SafeTensors::open(kGoldenFolder / "tiny-hf")) {}

    /// [ids, V]; row i sees the keys of positions i - window + 1 to i.
    at::Tensor logits(const std::vector<TokenId>& ids, std::int64_t window) const {
        at::Tensor x = weight("model.embed_tokens").index_select(0, at::tensor(std::vector<std::int64_t>(ids.begin(), ids.end())));
        for (std::int64_t i = 0; i < c_.layers; ++i) {
            const std::string own = fmt::format("model.layers.{}.", i);
            const at::Tensor h = norm(x, own + "input_layernorm");
            x = x + attend(h, own + "self_attn.", window).matmul(weight(own + "self_attn.o_proj").t());
            const at::Tensor m = norm(x, own + "post_attention_layernorm");
            const at::Tensor gate = at::silu(m.matmul(weight(own + "mlp.gate_proj").t()));
            x = x + (gate * m.matmul(weight(own + "mlp.up_proj").t())).matmul(weight(own + "mlp.down_proj").t());
        }
        return norm(x, "model.norm").matmul(weight("lm_head").t());
    }

private:
    at::Tensor weight(const std::string& name) const {
        const SafeTensor& tensor = file_.tensor(name + ".weight");
        return at::tensor(to_floats(tensor)).view(tensor.shape);
    }
    at::Tensor norm(const at::Tensor& x, const std::string& name) const {
        return x * at::rsqrt(x.square().mean(-1, true) + c_.norm_eps) * weight(name);
    }
    /// x [heads, head_dim] at `position`.
    at::Tensor turn(const at::Tensor& x, std::int64_t position) const {
        const at::Tensor angle = at::tensor(c_.rope_frequencies()) * static_cast<double>(position);
        const std::int64_t half = c_.head_dim / 2;
        const at::Tensor a = x.slice(1, 0, half), b = x.slice(1, half);
        return at::cat({a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()}, 1);
    }
    at::Tensor attend(const at::Tensor& h, const std::string& own, std::int64_t window) const {
        const at::Tensor q = h.matmul(weight(own + "q_proj").t()).view({-1, c_.heads, c_.head_dim});
        const at::Tensor k = h.matmul(weight(own + "k_proj").t()).view({-1, c_.kv_heads, c_.head_dim});
        const at::Tensor v = h.matmul(weight(own + "v_proj").t()).view({-1, c_.kv_heads, c_.head_dim});
        std::vector<at::Tensor> keys, rows;
        for (std::int64_t i = 0; i < h.size(0); ++i) {
            keys.push_back(turn(k[i], i));
            const at::Tensor query = turn(q[i], i);
            std::vector<at::Tensor> heads;
            for (std::int64_t head = 0; head < c_.heads; ++head) {
                const std::int64_t kv = head / (c_.heads / c_.kv_heads);
                std::vector<at::Tensor> scores, values;
                for (std::int64_t j = std::max<std::int64_t>(0, i - window + 1); j <= i; ++j) {
                    const at::Tensor key = keys[static_cast<std::size_t>(j)][kv];
                    scores.push_back(query[head].dot(key) / std::sqrt(static_cast<double>(c_.head_dim)));
                    values.push_back(v[j][kv]);
                }
                heads.push_back(at::softmax(at::stack(scores), 0).matmul(at::stack(values)));
            }
            rows.push_back(at::cat(heads));
        }
        return at::stack(rows);
    }

    LlamaConfig c_;
    SafeTensors file_;
};

std::vector<TokenId> some_ids() {
    std::vector<TokenId> ids;
    for (std::int64_t i = 0; i < kLength; ++i) ids.push_back(static_cast<TokenId>((7 + 37 * i + i * i) % 280));
    return ids;
}

double worst(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

/// A tree deeper than the window, with branches from several depths.
const std::vector<NodeIndex> kParents = {kNoNode, 0, 1, 2, 3, 4, 5, 6, 7, 0, 9, 10, 2, 12, 8, 14};

std::vector<TokenId> tree_tokens() {
    std::vector<TokenId> tokens;
    for (std::size_t i = 0; i < kParents.size(); ++i) tokens.push_back(static_cast<TokenId>(11 + 13 * i));
    return tokens;
}

/// The tokens from the root to a node.
std::vector<TokenId> path_to(std::size_t node) {
    std::vector<TokenId> path;
    for (auto at = static_cast<NodeIndex>(node); at != kNoNode; at = kParents[static_cast<std::size_t>(at)])
        path.insert(path.begin(), tree_tokens()[static_cast<std::size_t>(at)]);
    return path;
}

at::Tensor run(TargetPass& pass, KvCache& cache, std::span<const TokenId> tokens, std::span<const NodeIndex> parents = {}) {
    const RowSegment segment{.cache = &cache, .tokens = tokens, .parents = parents};
    return pass.forward(std::span(&segment, 1), true).logits.clone();
}

}  // namespace

TEST_CASE("A window hides older keys from chains, pieces of a prompt, and trees, by both backends") {
    const Backend backend = GENERATE(Backend::aten, Backend::kernels);
    const WindowFolder folder(kWindow);
    const LlamaModel model =
        LlamaModel::load(folder.path(), {.weights = Weights::f32, .backend = backend, .threads = 2});
    REQUIRE(model.config().window == kWindow);
    const Restatement plain(model);
    const std::vector<TokenId> ids = some_ids();
    const at::Tensor expected = plain.logits(ids, kWindow);
    const auto pass = model.make_pass();
    CHECK(worst(all_logits(*pass, ids), expected) < 1e-4);
    CHECK(worst(plain.logits(ids, kLength), expected) > 0.01);  // the window matters
    CHECK(worst(plain.logits(ids, kWindow + 1), expected) > 0.01);

    for (const std::int64_t committed : {2, 17}) {  // a context inside the window, and a longer one
        KvCache cache = pass->make_cache();
        const std::span<const TokenId> all(ids);
        for (std::int64_t done = 0; done < committed; ++done) {
            const at::Tensor logits = run(*pass, cache, all.subspan(static_cast<std::size_t>(done), 1));
            CHECK(worst(logits[0], expected[done]) < 1e-4);
            cache.append(1);
        }
        const at::Tensor rest = run(*pass, cache, all.subspan(static_cast<std::size_t>(committed)));
        CHECK(worst(rest, expected.slice(0, committed)) < 1e-4);
        const at::Tensor tree = run(*pass, cache, tree_tokens(), kParents);
        for (std::size_t node = 0; node < kParents.size(); ++node) {
            CAPTURE(committed, node);
            std::vector<TokenId> text(ids.begin(), ids.begin() + committed);
            for (const TokenId token : path_to(node)) text.push_back(token);
            CHECK(worst(tree[static_cast<std::int64_t>(node)], plain.logits(text, kWindow)[-1]) < 1e-4);
        }
    }
}

TEST_CASE("With a window a tree's rows have the bits of plain decoding") {
    const WindowFolder folder(kWindow);
    const LlamaModel model = LlamaModel::load(folder.path(), {.weights = Weights::bf16, .backend = Backend::kernels, .threads = 2});
    const auto pass = model.make_pass();
    const std::vector<TokenId> ids = some_ids();
    KvCache cache = pass->make_cache();
    (void)run(*pass, cache, ids);
    cache.append(kLength);
    const at::Tensor tree = run(*pass, cache, tree_tokens(), kParents);
    for (std::size_t node = 0; node < kParents.size(); ++node) {
        CAPTURE(node);
        KvCache alone = pass->make_cache();
        (void)run(*pass, alone, ids);
        alone.append(kLength);
        at::Tensor last;
        for (const TokenId token : path_to(node)) {
            last = run(*pass, alone, std::span(&token, 1))[0];
            alone.append(1);
        }
        CHECK(at::equal(tree[static_cast<std::int64_t>(node)], last));
    }
}

TEST_CASE("A window as long as the context is no window") {
    const WindowFolder folder(512);
    CHECK(LlamaModel::load(folder.path()).config().window == 0);
    const WindowFolder narrow(511);
    CHECK(LlamaModel::load(narrow.path()).config().window == 511);
    CHECK(LlamaModel::load(narrow.path()).fingerprint() != LlamaModel::load(folder.path()).fingerprint());
}

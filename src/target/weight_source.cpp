#include "weight_source.hpp"

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <cstring>

#include <outrider/core/detail/rng.hpp>
#include <outrider/core/error.hpp>
#include "formats/gguf.hpp"

#include "families.hpp"

namespace outrider {
namespace {

/// Rows of a table looked up before its pages are let go. A row is a page fault, which maps what lies beside it too (64
/// KB on Linux): a few hundred rows here and there hold a whole table in memory that is packed elsewhere already.
constexpr std::size_t kRowsInMemory = 64;

/// One tensor that the model has. columns = 0: a vector of `rows`.
struct Expected {
    std::string name, gguf, hf;
    std::int64_t rows = 0, columns = 0;
    std::int64_t rotary_heads = 0;  // of queries or keys
    bool norm = false;
};

/// The tensors of one layer after another.
class LayerTensors {
public:
    LayerTensors(const ModelConfig& config, std::vector<Expected>& all)
        : c_(config), family_(family_named(config.family)), all_(all) {}

    void add(std::int64_t layer) {
        own_ = fmt::format("{}.", layer), gguf_ = fmt::format("blk.{}.", layer);
        hf_ = fmt::format("model.layers.{}.", layer);
        const std::int64_t q = c_.heads * c_.head_dim, kv = c_.kv_heads * c_.head_dim;
        matrix({"q", "attn_q", "self_attn.q_proj", q, c_.hidden, c_.heads}, c_.qkv_bias);
        matrix({"k", "attn_k", "self_attn.k_proj", kv, c_.hidden, c_.kv_heads}, c_.qkv_bias);
        matrix({"v", "attn_v", "self_attn.v_proj", kv, c_.hidden}, c_.qkv_bias);
        matrix({"o", "attn_output", "self_attn.o_proj", c_.hidden, q}, c_.o_bias);
        matrix({"gate", "ffn_gate", "mlp.gate_proj", c_.feed_forward, c_.hidden}, c_.mlp_bias);
        matrix({"up", "ffn_up", "mlp.up_proj", c_.feed_forward, c_.hidden}, c_.mlp_bias);
        matrix({"down", "ffn_down", "mlp.down_proj", c_.hidden, c_.feed_forward}, c_.mlp_bias);
        add_norms(q, kv);
    }

private:
    void add_norms(std::int64_t q, std::int64_t kv) {
        using HeadNorm = ModelConfig::HeadNorm;
        if (c_.pre_norms) {
            norm("attention_norm", "attn_norm", "input_layernorm");
            norm("mlp_norm", "ffn_norm", family_.hf_mlp_norm);
        }
        if (c_.post_norms) {
            norm("post_attention_norm", "post_attention_norm", family_.hf_post_attention);
            norm("post_mlp_norm", "post_ffw_norm", family_.hf_post_mlp);
        }
        if (c_.head_norm == HeadNorm::none) return;
        const bool each = c_.head_norm == HeadNorm::each;
        add({"q_norm", "attn_q_norm", "self_attn.q_norm", each ? c_.head_dim : q, 0, each ? 1 : c_.heads, true},
            "weight");
        add({"k_norm", "attn_k_norm", "self_attn.k_norm", each ? c_.head_dim : kv, 0, each ? 1 : c_.kv_heads, true},
            "weight");
    }

    void matrix(Expected one, bool biased) {
        add(one, "weight");
        if (biased) add({one.name + "_bias", one.gguf, one.hf, one.rows, 0, one.rotary_heads}, "bias");
    }
    void norm(const char* name, const char* gguf, std::string_view hf) {
        add({name, gguf, std::string(hf), c_.hidden, 0, 0, true}, "weight");
    }
    void add(Expected one, const char* what) {
        one.name = own_ + one.name;
        one.gguf = gguf_ + one.gguf + "." + what;
        one.hf = hf_ + one.hf + "." + what;
        all_.push_back(std::move(one));
    }

    const ModelConfig& c_;
    const Family& family_;
    std::vector<Expected>& all_;
    std::string own_, gguf_, hf_;
};

std::vector<Expected> expected_tensors(const ModelConfig& c) {
    std::vector<Expected> all{{"embed", "token_embd.weight", "model.embed_tokens.weight", c.vocabulary, c.hidden},
                              {"norm", "output_norm.weight", "model.norm.weight", c.hidden, 0, 0, true}};
    if (!c.tied_output) all.push_back({"output", "output.weight", "lm_head.weight", c.vocabulary, c.hidden});
    LayerTensors layers(c, all);
    for (std::int64_t layer = 0; layer < c.layers; ++layer) layers.add(layer);
    return all;
}

/// Tensors that say nothing new: rotary tables, and an output matrix beside a tied embedding.
bool is_redundant(const std::string& name, const ModelConfig& config) {
    return name == "rope_freqs.weight" || name == "rope_factors_long.weight" || name == "rope_factors_short.weight" ||
           name.ends_with(".rotary_emb.inv_freq") || (config.tied_output && name == "lm_head.weight");
}

std::uint64_t hash_bytes(std::uint64_t seed, std::span<const std::byte> bytes) {
    std::uint64_t hash = mix64(seed ^ bytes.size());
    for (std::size_t i = 0; i < bytes.size(); i += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, bytes.data() + i, std::min<std::size_t>(8, bytes.size() - i));
        hash = mix64(hash ^ word);
    }
    return hash;
}

std::uint64_t hash_text(std::uint64_t seed, const std::string& text) {
    return hash_bytes(seed, std::as_bytes(std::span(text)));
}

}  // namespace

void WeightSource::split(FileTensors& tensors, const std::string& whole, std::span<const Part> parts,
                         const std::string& file) {
    const auto found = tensors.find(whole);
    if (found == tensors.end()) return;
    const Entry entry = found->second;
    std::int64_t sum = 0;
    for (const Part& part : parts) sum += part.rows;
    require(entry.rows == sum, ErrorKind::damaged_file,
            "{}: tensor \"{}\" has {} rows, expected {} by the model's configuration", file, whole, entry.rows, sum);
    tensors.erase(found);
    std::size_t first = 0;
    for (const Part& part : parts) {
        Entry piece = entry;
        const std::size_t size = static_cast<std::size_t>(part.rows) * entry.row_bytes();
        piece.rows = part.rows, piece.data = entry.data.subspan(first, size);
        first += size;
        tensors.emplace(part.name, std::move(piece));
    }
}

// Rows of q, k and v, or of gate and up, one below the other.
void WeightSource::split_fused(FileTensors& tensors, const ModelConfig& c, bool gguf, const std::string& file) {
    const std::int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim, f = c.feed_forward;
    for (std::int64_t layer = 0; layer < c.layers; ++layer) {
        const std::string own = fmt::format("{}.{}.", gguf ? "blk" : "model.layers", layer);
        const std::string attention = own + (gguf ? "attn_" : "self_attn."), mlp = own + (gguf ? "ffn_" : "mlp.");
        const std::string end = gguf ? "" : "_proj";
        for (const char* what : {".weight", ".bias"}) {
            const std::string last = end + what;
            const std::array<Part, 3> qkv{
                {{attention + "q" + last, q}, {attention + "k" + last, kv}, {attention + "v" + last, kv}}};
            split(tensors, attention + "qkv" + last, qkv, file);
            const std::array<Part, 2> gate_up{{{mlp + "gate" + last, f}, {mlp + "up" + last, f}}};
            if (!gguf)
                split(tensors, mlp + "gate_up" + last, gate_up, file);
            else if (!tensors.contains(mlp + "gate" + last))
                if (const auto up = tensors.find(mlp + "up" + last); up != tensors.end() && up->second.rows == 2 * f)
                    split(tensors, mlp + "up" + last, gate_up, file);
        }
    }
}

// Takes the expected ones out of `tensors` (by file name; rows = first dimension, columns = second or 0).
void WeightSource::take(FileTensors& tensors, const ModelConfig& config, bool gguf, const std::string& file) {
    require(config.layers <= static_cast<std::int64_t>(tensors.size()), ErrorKind::damaged_file,
            "{}: the configuration asks for {} layers, the "
            "file has {} tensors; it is incomplete",
            file, config.layers, tensors.size());
    const Family& family = family_named(config.family);
    const bool pairs = gguf ? family.gguf_pairs : family.hf_pairs;
    split_fused(tensors, config, gguf, file);
    for (const Expected& want : expected_tensors(config)) {
        const std::string& name = gguf ? want.gguf : want.hf;
        const auto found = tensors.find(name);
        require(found != tensors.end(), ErrorKind::damaged_file,
                "{}: tensor \"{}\" is missing; the file is incomplete or of another "
                "architecture",
                file, name);
        Entry entry = found->second;
        tensors.erase(found);
        require(entry.rows == want.rows && entry.columns == want.columns, ErrorKind::damaged_file,
                "{}: tensor \"{}\" has shape [{}, {}], expected [{}, {}] (0: no such dimension) by the model's "
                "configuration",
                file, name, entry.rows, entry.columns, want.rows, want.columns);
        require(can_dequantise(entry.type), ErrorKind::not_supported,
                "{}: tensor \"{}\" is stored as {}, which is not supported; convert the "
                "model to another type",
                file, name, ggml_name(entry.type));
        entry.paired_heads = pairs ? want.rotary_heads : 0, entry.rotated = config.rotated;
        if (want.columns == 0 && entry.paired_heads == 0) entry.rows = 1, entry.columns = want.rows;
        if (want.columns == 0 && entry.paired_heads > 0) entry.columns = 1;
        if (want.norm && !gguf) entry.offset = family.hf_norm_offset;
        entries_.emplace(want.name, std::move(entry));
    }
    for (const auto& [name, entry] : tensors)
        require(is_redundant(name, config), ErrorKind::not_supported,
                "{}: tensor \"{}\" is not part of a {} model; a bias, adapter or other "
                "architecture is not supported",
                file, name, config.family);
}

WeightSource WeightSource::from_gguf(const GgufFile& file, const ModelConfig& config) {
    WeightSource source;
    source.drop_pages_ = [file](std::span<const std::byte> part) { file.drop_pages(part); };
    FileTensors tensors;
    for (const GgufTensor& tensor : file.tensors()) {
        require(tensor.shape.size() <= 2 && !tensor.shape.empty(), ErrorKind::damaged_file,
                "{}: tensor \"{}\" has {} dimensions, expected a "
                "vector or a matrix",
                file.name(), tensor.name, tensor.shape.size());
        tensors.emplace(tensor.name, Entry{.file_name = tensor.name,
                                           .type = tensor.type,
                                           .rows = tensor.shape[0],
                                           .columns = tensor.shape.size() > 1 ? tensor.shape[1] : 0,
                                           .data = tensor.data});
    }
    source.take(tensors, config, true, file.name());
    return source;
}

const WeightSource::Entry& WeightSource::at(const std::string& name) const {
    const auto found = entries_.find(name);
    require(found != entries_.end(), ErrorKind::damaged_file, "WeightSource: there is no tensor \"{}\"", name);
    return found->second;
}

// Such a file holds rotary pair i of a head as rows 2 i and 2 i + 1; half-rotation wants them at i and i + d/2.
std::int64_t WeightSource::Entry::file_row(std::int64_t index) const {
    if (paired_heads == 0) return index;
    const std::int64_t within = index % (rows / paired_heads);
    if (within >= rotated) return index;
    return index - within + (within < rotated / 2 ? 2 * within : 2 * (within - rotated / 2) + 1);
}

std::span<const std::byte> WeightSource::row(const Entry& entry, std::int64_t index) const {
    return entry.data.subspan(static_cast<std::size_t>(entry.file_row(index)) * entry.row_bytes(), entry.row_bytes());
}

std::vector<float> WeightSource::floats(const std::string& name) const {
    const Entry& entry = at(name);
    const auto columns = static_cast<std::size_t>(entry.columns);
    std::vector<float> result(static_cast<std::size_t>(entry.rows) * columns);
    if (entry.paired_heads == 0)
        dequantise(entry.type, entry.data, result);
    else
        for (std::int64_t r = 0; r < entry.rows; ++r)
            dequantise(entry.type, row(entry, r),
                       std::span(result).subspan(static_cast<std::size_t>(r) * columns, columns));
    if (entry.offset != 0)
        for (float& value : result) value += entry.offset;
    return result;
}

void WeightSource::read_rows(const std::string& name, std::span<const TokenId> ids, float* out) const {
    const Entry& entry = at(name);
    const auto columns = static_cast<std::size_t>(entry.columns);
    for (const TokenId id : ids) {
        require(id >= 0 && id < entry.rows, ErrorKind::damaged_file, "token {} is outside the vocabulary of {} tokens",
                id, entry.rows);
        dequantise(entry.type, row(entry, id), std::span(out, columns));
        out += columns;
        if ((std::atomic_ref(entry.rows_read).fetch_add(1, std::memory_order_relaxed) + 1) % kRowsInMemory == 0)
            drop_pages_(entry.data);
    }
}

std::span<const std::byte> WeightSource::blocks(const std::string& name, std::vector<std::byte>& scratch) const {
    const Entry& entry = at(name);
    if (entry.paired_heads == 0) return entry.data;
    scratch.resize(entry.data.size());
    for (std::int64_t r = 0; r < entry.rows; ++r) {
        const std::span<const std::byte> from = row(entry, r);
        std::memcpy(scratch.data() + static_cast<std::size_t>(r) * from.size(), from.data(), from.size());
    }
    return scratch;
}

std::string WeightSource::fingerprint(const ModelConfig& config) const {
    std::uint64_t hash = hash_text(0, config.name);
    for (const std::int64_t size : {config.layers, config.hidden, config.heads, config.kv_heads, config.head_dim,
                                    config.feed_forward, config.vocabulary})
        hash = mix64(hash ^ static_cast<std::uint64_t>(size));
    hash = hash_text(hash, fmt::format("{} {} {}", config.rope.theta, config.norm_eps, config.tied_output));
    if (config.window > 0) hash = mix64(hash ^ static_cast<std::uint64_t>(config.window));
    // A Mistral file's tensors mean what a Llama's do, and drafters know both by the hash of what stands above.
    if (config.family != "llama" && config.family != "mistral") hash = hash_text(hash, config.family);
    for (const auto& [name, entry] : entries_) {
        hash = hash_text(hash, name + ggml_name(entry.type));
        // Samples of the middle and of the end: cheap, and any other training differs.
        const std::size_t size = entry.data.size(), sample = std::min<std::size_t>(size, 256);
        hash = hash_bytes(hash, entry.data.subspan(size / 2 - sample / 2, sample));
        hash = hash_bytes(hash, entry.data.last(sample));
    }
    return fmt::format("{:016x}", hash);
}

}  // namespace outrider

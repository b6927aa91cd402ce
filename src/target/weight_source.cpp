#include "weight_source.hpp"

#include <fmt/format.h>

#include <atomic>
#include <cstring>

#include <outrider/core/error.hpp>
#include <outrider/core/rng.hpp>
#include "formats/gguf.hpp"

namespace outrider {
namespace {

/// Rows of a table looked up before its pages are let go. A row is a page fault, which maps what lies beside it too (64
/// KB on Linux): a few hundred rows here and there hold a whole table in memory that is packed elsewhere already.
constexpr std::size_t kRowsInMemory = 64;

/// One tensor that the architecture has. columns = 0: a vector of `rows`.
struct Expected {
    std::string name, gguf, hf;
    std::int64_t rows = 0, columns = 0;
    std::int64_t rotary_heads = 0;
};

std::vector<Expected> expected_tensors(const LlamaConfig& c) {
    const std::int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
    std::vector<Expected> all{{"embed", "token_embd.weight", "model.embed_tokens.weight", c.vocabulary, c.hidden},
                              {"norm", "output_norm.weight", "model.norm.weight", c.hidden}};
    if (!c.tied_output) all.push_back({"output", "output.weight", "lm_head.weight", c.vocabulary, c.hidden});
    for (std::int64_t layer = 0; layer < c.layers; ++layer) {
        const std::string own = fmt::format("{}.", layer), gguf = fmt::format("blk.{}.", layer),
                          hf = fmt::format("model.layers.{}.", layer);
        const auto add = [&](const char* name, const char* gguf_name, const char* hf_name, std::int64_t rows,
                             std::int64_t columns, std::int64_t rotary_heads = 0) {
            all.push_back(
                {own + name, gguf + gguf_name + ".weight", hf + hf_name + ".weight", rows, columns, rotary_heads});
        };
        add("attention_norm", "attn_norm", "input_layernorm", c.hidden, 0);
        add("q", "attn_q", "self_attn.q_proj", q, c.hidden, c.heads);
        add("k", "attn_k", "self_attn.k_proj", kv, c.hidden, c.kv_heads);
        add("v", "attn_v", "self_attn.v_proj", kv, c.hidden);
        add("o", "attn_output", "self_attn.o_proj", c.hidden, q);
        add("mlp_norm", "ffn_norm", "post_attention_layernorm", c.hidden, 0);
        add("gate", "ffn_gate", "mlp.gate_proj", c.feed_forward, c.hidden);
        add("up", "ffn_up", "mlp.up_proj", c.feed_forward, c.hidden);
        add("down", "ffn_down", "mlp.down_proj", c.hidden, c.feed_forward);
    }
    return all;
}

/// Tensors that say nothing new: rotary tables, and an output matrix beside a tied embedding.
bool is_redundant(const std::string& name, const LlamaConfig& config) {
    return name == "rope_freqs.weight" || name.ends_with(".rotary_emb.inv_freq") ||
           (config.tied_output && name == "lm_head.weight");
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

// Takes the expected ones out of `tensors` (by file name; rows = first dimension, columns = second or 0).
void WeightSource::take(FileTensors& tensors, const LlamaConfig& config, bool gguf, const std::string& file) {
    require(config.layers <= static_cast<std::int64_t>(tensors.size()),
            "{}: the configuration asks for {} layers, the "
            "file has {} tensors; it is incomplete",
            file, config.layers, tensors.size());
    for (const Expected& want : expected_tensors(config)) {
        const std::string& name = gguf ? want.gguf : want.hf;
        const auto found = tensors.find(name);
        require(found != tensors.end(),
                "{}: tensor \"{}\" is missing; the file is incomplete or of another "
                "architecture",
                file, name);
        Entry entry = found->second;
        tensors.erase(found);
        require(entry.rows == want.rows && entry.columns == want.columns,
                "{}: tensor \"{}\" has shape [{}, {}], expected [{}, {}] (0: no such dimension) by the model's "
                "configuration",
                file, name, entry.rows, entry.columns, want.rows, want.columns);
        require(can_dequantise(entry.type),
                "{}: tensor \"{}\" is stored as {}, which is not supported; convert the "
                "model to another type",
                file, name, ggml_name(entry.type));
        if (want.columns == 0) entry.rows = 1, entry.columns = want.rows;
        entry.interleaved_heads = gguf ? want.rotary_heads : 0;
        entries_.emplace(want.name, std::move(entry));
    }
    for (const auto& [name, entry] : tensors)
        require(is_redundant(name, config),
                "{}: tensor \"{}\" is not part of a Llama model; a bias, adapter or other "
                "architecture is not supported",
                file, name);
}

WeightSource WeightSource::from_gguf(const GgufFile& file, const LlamaConfig& config) {
    WeightSource source;
    source.drop_pages_ = [file](std::span<const std::byte> part) { file.drop_pages(part); };
    FileTensors tensors;
    for (const GgufTensor& tensor : file.tensors()) {
        require(tensor.shape.size() <= 2 && !tensor.shape.empty(),
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
    require(found != entries_.end(), "WeightSource: there is no tensor \"{}\"", name);
    return found->second;
}

// GGUF holds rotary pair i of a head as rows 2 i and 2 i + 1; half-rotation wants them at i and i + d/2.
std::int64_t WeightSource::Entry::file_row(std::int64_t index) const {
    if (interleaved_heads == 0) return index;
    const std::int64_t dim = rows / interleaved_heads, within = index % dim;
    return index - within + (within < dim / 2 ? 2 * within : 2 * (within - dim / 2) + 1);
}

std::span<const std::byte> WeightSource::row(const Entry& entry, std::int64_t index) const {
    return entry.data.subspan(static_cast<std::size_t>(entry.file_row(index)) * entry.row_bytes(), entry.row_bytes());
}

std::vector<float> WeightSource::floats(const std::string& name) const {
    const Entry& entry = at(name);
    const auto columns = static_cast<std::size_t>(entry.columns);
    std::vector<float> result(static_cast<std::size_t>(entry.rows) * columns);
    if (entry.interleaved_heads == 0) {
        dequantise(entry.type, entry.data, result);
        return result;
    }
    for (std::int64_t r = 0; r < entry.rows; ++r)
        dequantise(entry.type, row(entry, r),
                   std::span(result).subspan(static_cast<std::size_t>(r) * columns, columns));
    return result;
}

void WeightSource::read_rows(const std::string& name, std::span<const TokenId> ids, float* out) const {
    const Entry& entry = at(name);
    const auto columns = static_cast<std::size_t>(entry.columns);
    for (const TokenId id : ids) {
        require(id >= 0 && id < entry.rows, "token {} is outside the vocabulary of {} tokens", id, entry.rows);
        dequantise(entry.type, row(entry, id), std::span(out, columns));
        out += columns;
        if ((std::atomic_ref(entry.rows_read).fetch_add(1, std::memory_order_relaxed) + 1) % kRowsInMemory == 0)
            drop_pages_(entry.data);
    }
}

std::span<const std::byte> WeightSource::blocks(const std::string& name, std::vector<std::byte>& scratch) const {
    const Entry& entry = at(name);
    if (entry.interleaved_heads == 0) return entry.data;
    scratch.resize(entry.data.size());
    for (std::int64_t r = 0; r < entry.rows; ++r) {
        const std::span<const std::byte> from = row(entry, r);
        std::memcpy(scratch.data() + static_cast<std::size_t>(r) * from.size(), from.data(), from.size());
    }
    return scratch;
}

std::string WeightSource::fingerprint(const LlamaConfig& config) const {
    std::uint64_t hash = hash_text(0, config.name);
    for (const std::int64_t size : {config.layers, config.hidden, config.heads, config.kv_heads, config.head_dim,
                                    config.feed_forward, config.vocabulary})
        hash = mix64(hash ^ static_cast<std::uint64_t>(size));
    hash = hash_text(hash, fmt::format("{} {} {}", config.rope_theta, config.norm_eps, config.tied_output));
    if (config.window > 0) hash = mix64(hash ^ static_cast<std::uint64_t>(config.window));
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

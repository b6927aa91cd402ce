// The tensors of a checkpoint under one set of names, wherever they come from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <outrider/core/types.hpp>
#include "formats/ggml_types.hpp"
#include <outrider/target/model_config.hpp>

namespace outrider {

class NamedTensors;

/// Names: "embed", "norm", "output" (not when tied), "L.attention_norm", "L.q", "L.k", "L.v", "L.o", "L.mlp_norm",
/// "L.gate", "L.up", "L.down" with L the layer's number, and what the configuration asks for besides: "L.q_norm",
/// "L.k_norm", "L.post_attention_norm", "L.post_mlp_norm", and biases, "L.q_bias" and so on. Matrices are [out, in];
/// rows of q and k are in the order of half-rotation (rotary pair i is dimensions i and i + d/2 of the d that turn), so
/// files with neighbouring pairs are put in order, and tensors that a file holds as one are told apart.
class WeightSource {
public:
    /// Throw Error for tensors that are missing, extra, misshaped or of a type that cannot be read.
    [[nodiscard]] static WeightSource from_gguf(const GgufFile& file, const ModelConfig& config);
    [[nodiscard]] static WeightSource from_hf(const NamedTensors& file, const ModelConfig& config);

    /// Whether the output matrix is the embedding: where the configuration says so, unless the file has both and they
    /// differ (which then is what the model was trained to, as in `transformers`). Throws Error for a file without the
    /// matrix that the configuration asks for.
    [[nodiscard]] static bool has_tied_output(const NamedTensors& file, const ModelConfig& config);

    [[nodiscard]] GgmlType type(const std::string& name) const { return at(name).type; }
    [[nodiscard]] std::int64_t rows(const std::string& name) const { return at(name).rows; }
    [[nodiscard]] std::int64_t columns(const std::string& name) const { return at(name).columns; }

    /// The whole tensor as f32.
    [[nodiscard]] std::vector<float> floats(const std::string& name) const;
    /// Rows `ids` of a matrix as f32: `out` is [ids, columns]. Several threads may call it at once. Now and then it
    /// lets the file's pages go that it has read.
    void read_rows(const std::string& name, std::span<const TokenId> ids, float* out) const;
    /// The tensor in its own format. A view of the file, or of `scratch` where rows had to be put in order.
    [[nodiscard]] std::span<const std::byte> blocks(const std::string& name, std::vector<std::byte>& scratch) const;

    /// The tensor was copied elsewhere and will seldom be read again: its file pages need not stay in memory.
    void drop_pages(const std::string& name) const { drop_pages_(at(name).data); }

    /// 16 hexadecimal digits over sizes, constants and samples of the tensors' bytes.
    [[nodiscard]] std::string fingerprint(const ModelConfig& config) const;

private:
    struct Entry {
        std::string file_name;
        GgmlType type = GgmlType::f32;
        std::int64_t rows = 0;
        std::int64_t columns = 0;
        std::span<const std::byte> data;
        std::int64_t paired_heads = 0;      // > 0: pairs are neighbouring rows, in this many heads
        std::int64_t rotated = 0;           // then: the rows of a head that turn
        float offset = 0;                   // added to every value
        mutable std::size_t rows_read = 0;  // by read_rows, in all; only through atomic_ref

        [[nodiscard]] std::size_t row_bytes() const { return data.size() / static_cast<std::size_t>(rows); }
        [[nodiscard]] std::int64_t file_row(std::int64_t row) const;
    };

    using FileTensors = std::map<std::string, Entry>;

    struct Part {
        std::string name;
        std::int64_t rows;
    };

    /// Tells apart what a file holds as one tensor, where it does; all others stay as they are.
    static void split(FileTensors& tensors, const std::string& whole, std::span<const Part> parts,
                      const std::string& file);
    static void split_fused(FileTensors& tensors, const ModelConfig& config, bool gguf, const std::string& file);
    void take(FileTensors& tensors, const ModelConfig& config, bool gguf, const std::string& file);
    [[nodiscard]] const Entry& at(const std::string& name) const;
    [[nodiscard]] std::span<const std::byte> row(const Entry& entry, std::int64_t index) const;

    std::map<std::string, Entry> entries_;
    std::function<void(std::span<const std::byte>)> drop_pages_;  // keeps the mapping alive
};

}  // namespace outrider

// Matrix products of the CPU target pass: weights packed once, in the file's own bits where it is quantised, times rows
// whose results never depend on how many rows run beside them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include <outrider/core/detail/thread_team.hpp>

namespace outrider {

/// How weights are held. q* are ggml's blocks as stored in GGUF files; int8 is made here from floats, in blocks of 32
/// with a half-precision scale (the arithmetic of q8_0). q8_planes is q8_0 or int8 with the same results, its integers
/// cut into planes of 4 bits: see PackedLinear::bound.
enum class WeightFormat : unsigned char { f32, bf16, int8, q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q5_k, q6_k, q8_planes };

[[nodiscard]] std::string_view name(WeightFormat format);

/// How the rows are held that meet such weights: f32 for f32 weights, f32 or (on the paths `bf16` and `amx`, isa.hpp)
/// bf16 for bf16 weights, else int8 in blocks of 32.
enum class RowForm : unsigned char { f32, bf16, int8 };
[[nodiscard]] RowForm row_form(WeightFormat format);

/// The scales of 32 quantised values of a row: value = q * scale, |q| <= 127.
struct RowScale {
    float scale = 0;             ///< largest magnitude / 127; NaN when the 32 values hold an infinity or a NaN
    float sum = 0;               ///< scale * the sum of the 32 integers
    std::int32_t minus_all = 0;  ///< minus the sum of the 32 integers
    std::int32_t minus_low = 0;  ///< minus the sum of the first 16
};

/// Memory aligned for vectors, uninitialised, kept when it shrinks.
class AlignedBytes {
public:
    AlignedBytes() = default;
    explicit AlignedBytes(std::size_t bytes) { reserve(bytes); }
    void reserve(std::size_t bytes);  ///< grows to at least `bytes`; the contents are lost when it grows
    [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }
    [[nodiscard]] std::byte* data() const noexcept { return data_.get(); }

private:
    struct Free {
        void operator()(std::byte* p) const noexcept;
    };
    std::unique_ptr<std::byte, Free> data_;
    std::size_t capacity_ = 0;
};

/// Rows in the form that the weights need. Reused from call to call: memory only grows.
///
/// Layout: groups of group_rows(form) rows (the last one may be smaller, of g rows); inside a group f32 is [in][g],
/// bf16 is [in / 32][g][16] pairs, int8 is [in / 32][g][32] with scales [in / 32][g]. `in` is padded with zeros to a
/// multiple of 32.
class PackedRows {
public:
    /// Two tiles of 12 rows in vector registers, of bf16 two tiles of 16 rows in those of AMX.
    [[nodiscard]] static constexpr std::int64_t group_rows(RowForm form) noexcept {
        return form == RowForm::bf16 ? 32 : 24;
    }

    /// Packs x [n, in] (row stride ldx floats). Every member calls it with the same arguments and packs its share; a
    /// barrier must follow before the rows are used, and precede it if they were in use. Each row's form depends on
    /// that row alone.
    void assign(TeamMember& member, const float* x, std::int64_t n, std::int64_t in, std::int64_t ldx,
                WeightFormat target);

    /// The same for RMS-normalised rows: x / sqrt(mean(x^2) + eps) * weight [in].
    void assign_rms_norm(TeamMember& member, const float* x, std::int64_t n, std::int64_t in, std::int64_t ldx,
                         const float* weight, float eps, WeightFormat target);

    /// The same for gated rows: silu(x[i]) * x[in + i]; x is [n, 2 in], gate and up side by side.
    void assign_silu_gate(TeamMember& member, const float* x, std::int64_t n, std::int64_t in, std::int64_t ldx,
                          WeightFormat target);

    /// Packs parts of rows as they come.
    class Parts {
    public:
        /// Values first to first + count - 1 of a row: whole blocks of 32, but where the row ends. Members that pack
        /// different blocks need not wait for each other.
        void pack(std::int64_t row, std::int64_t first, std::int64_t count, const float* x) const;

    private:
        friend class PackedRows;
        PackedRows* rows_ = nullptr;
        std::int64_t n_ = 0, in_ = 0;
        RowForm form_ = RowForm::f32;
    };

    /// Room for n rows, packed by parts. Every member calls it; barriers as with assign, and each block must be packed.
    [[nodiscard]] Parts prepare(TeamMember& member, std::int64_t n, std::int64_t in, WeightFormat target);

    [[nodiscard]] std::int64_t rows() const noexcept { return rows_; }
    [[nodiscard]] std::int64_t in() const noexcept { return in_; }
    [[nodiscard]] RowForm form() const noexcept { return form_; }
    [[nodiscard]] std::int64_t padded_in() const noexcept { return (in_ + 31) / 32 * 32; }

    [[nodiscard]] const float* floats() const noexcept { return reinterpret_cast<const float*>(values_.data()); }
    [[nodiscard]] const std::uint32_t* pairs() const noexcept {
        return reinterpret_cast<const std::uint32_t*>(values_.data());
    }
    [[nodiscard]] const std::int8_t* bytes() const noexcept {
        return reinterpret_cast<const std::int8_t*>(values_.data());
    }
    [[nodiscard]] const RowScale* scales() const noexcept { return reinterpret_cast<const RowScale*>(scales_.data()); }

private:
    void shape(TeamMember& member, std::int64_t n, std::int64_t in, RowForm form);
    struct Place {
        std::int64_t row, rows, blocks;
        RowForm form;
    };
    template <typename F>
    void pack_share(TeamMember& member, std::int64_t n, std::int64_t in, RowForm form, F values);
    void pack_part(const Place& at, std::int64_t first, std::int64_t count, const float* x);

    AlignedBytes values_, scales_, scratch_;
    std::int64_t rows_ = 0, in_ = 0;
    RowForm form_ = RowForm::f32;
};

/// What multiply does with the result.
enum class Store : unsigned char { set, add };

struct RowPick;  // row_ops.hpp

/// What PackedLinear::bound and choose work in. Reused from call to call: memory only grows.
struct ChoiceMemory {
    std::vector<float> norms;         ///< [blocks][rows]
    std::vector<unsigned char> both;  ///< [blocks] whether the low plane is read too
    std::vector<float> largest;       ///< [blocks]
    std::vector<std::size_t> order;   ///< [blocks]
    std::vector<std::int64_t> left;   ///< panels that the last call computed
};

/// An immutable matrix [out, in] in panels of 16 outputs. Copies share the memory.
///
/// y = W x: each output is a sum over k in one fixed order, so a row's result has the same bits alone or among others,
/// whichever thread takes it. The bits may differ between vector paths (isa.hpp), the integer sums may not.
class PackedLinear {
public:
    static constexpr std::int64_t kPanel = 16;

    PackedLinear() = default;  ///< empty: in() == out() == 0

    /// Packs floats [out, in], row-major, as f32, bf16 (rounded to nearest even), int8, q4_1 or q5_1 (each block's
    /// least and largest weight become the least and the largest integer). The team, where given, shares the work.
    [[nodiscard]] static PackedLinear pack(WeightFormat format, std::span<const float> weights, std::int64_t out,
                                           std::int64_t in, ThreadTeam* team = nullptr);

    /// Packs a file's ggml blocks [out, in / block] without changing a weight; f32 and bf16 are blocks of one. `in`
    /// must be a multiple of the block. Throws Error when the bytes do not fit the shape.
    [[nodiscard]] static PackedLinear pack_blocks(WeightFormat format, std::span<const std::byte> blocks,
                                                  std::int64_t out, std::int64_t in, ThreadTeam* team = nullptr);

    /// The outputs of several matrices side by side, in this order, from one multiply. They must have the same `in`,
    /// and rows of the same form on every path: all f32, all bf16, or none of the two. Shares their memory.
    [[nodiscard]] static PackedLinear stack(const std::vector<PackedLinear>& matrices);

    [[nodiscard]] std::int64_t in() const noexcept { return in_; }
    [[nodiscard]] std::int64_t out() const noexcept { return out_; }
    [[nodiscard]] std::size_t bytes() const noexcept;
    /// What a matrix [out, in] takes that is packed so.
    [[nodiscard]] static std::size_t bytes_of(WeightFormat format, std::int64_t out, std::int64_t in);
    /// Of the first matrix of a stack; row_form(format()) holds for all of them.
    [[nodiscard]] WeightFormat format() const noexcept { return format_; }

    /// y [n, out] (row stride ldy floats) = x W^T, or += with Store::add. Every member calls it and computes its share
    /// of the outputs; a barrier must follow before y is read.
    void multiply(TeamMember& member, const PackedRows& x, float* y, std::int64_t ldy, Store store = Store::set) const {
        multiply(member.range(panels_), x, y, ldy, store);
    }

    /// Panels of all stacked matrices, one after another; each matrix's last one may be narrower.
    [[nodiscard]] std::int64_t panels() const noexcept { return panels_; }

    /// The same for the outputs of some panels, by the thread that calls.
    void multiply(TeamMember::Range panels, const PackedRows& x, float* y, std::int64_t ldy,
                  Store store = Store::set) const;

    /// The same for a matrix that is not a stack, with y [n][16 panels] from the first of these panels on.
    void multiply_alone(TeamMember::Range panels, const PackedRows& x, float* y, std::int64_t ldy) const;

    /// Whether the path in use has a kernel for `bound`, and whether that serves this matrix and so many rows.
    [[nodiscard]] static bool path_chooses();
    [[nodiscard]] bool chooses(std::int64_t rows) const;

    /// The largest outputs of some panels in two calls, each by the thread that calls. `bound` writes an upper bound of
    /// each panel's outputs to uppers [panels of the matrix][rows], found from the high plane of the weights and the
    /// low plane of those columns where the rows are largest: half of the bytes or little more. least [rows] is one
    /// output of these panels, a large one; -infinity where all are NaN.
    void bound(TeamMember::Range panels, const PackedRows& x, ChoiceMemory& memory, float* uppers, float* least) const;

    /// Computes the panels that could hold an output of at least `least`, of any of these rows. With the largest
    /// `least` of all panels, or a smaller one, picks of all panels are those of all that `multiply` computes.
    void choose(TeamMember::Range panels, const PackedRows& x, ChoiceMemory& memory, const float* uppers,
                const float* least, RowPick* picks) const;

private:
    struct Part {
        WeightFormat format;
        std::int64_t out;     // outputs
        std::int64_t panels;  // of 16 outputs, the last one padded with zeros
        std::shared_ptr<const std::byte> data;
    };
    void check_rows(const PackedRows& x) const;
    void ask_for_panel(std::int64_t panel) const;

    std::vector<Part> parts_;
    std::int64_t in_ = 0, out_ = 0, panels_ = 0;
    WeightFormat format_ = WeightFormat::f32;
};

/// Bytes and values of one block of `format` in a file: {1, 4} for f32, {32, 20} for q4_1, ...
struct BlockShape {
    std::int64_t values = 1, bytes = 4;
};
[[nodiscard]] BlockShape block_shape(WeightFormat format);

}  // namespace outrider

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include <outrider/core/error.hpp>
#include "kernels/packed_linear.hpp"

#include "kernel_table.hpp"

namespace outrider {

void AlignedBytes::Free::operator()(std::byte* p) const noexcept { std::free(p); }

void AlignedBytes::reserve(std::size_t bytes) {
    if (bytes <= capacity_) return;
    const std::size_t rounded = (bytes + 63) / 64 * 64;
    data_.reset(static_cast<std::byte*>(std::aligned_alloc(64, rounded)));
    if (data_ == nullptr) throw std::bad_alloc();
    capacity_ = rounded;
}

void PackedRows::shape(TeamMember& member, std::int64_t n, std::int64_t in, RowForm form) {
    require(n >= 0 && in > 0, "PackedRows: {} rows of {} values; rows need at least one value", n, in);
    const std::int64_t padded = (in + 31) / 32 * 32;
    const std::size_t width = form == RowForm::f32 ? 4 : form == RowForm::bf16 ? 2 : 1;
    // A tile of AMX is read whole, also where fewer rows are left than it has.
    constexpr std::size_t kBehind = 16 * 64;
    const auto value_bytes = static_cast<std::size_t>(n * padded) * width + kBehind;
    const auto scale_bytes = form != RowForm::int8 ? 0 : static_cast<std::size_t>(n * padded / 32) * sizeof(RowScale);
    const auto scratch_bytes = static_cast<std::size_t>(member.size() * padded) * sizeof(float);
    // All members see the same capacities here, so all take the same branch.
    if (value_bytes > values_.capacity() || scale_bytes > scales_.capacity() || scratch_bytes > scratch_.capacity()) {
        member.barrier();
        if (member.index() == 0) {
            values_.reserve(value_bytes);
            scales_.reserve(scale_bytes);
            scratch_.reserve(scratch_bytes);
        }
        member.barrier();
    }
    if (member.index() == 0) rows_ = n, in_ = in, form_ = form;
}

// Packs `count` blocks of 32 of a row, from block `first` on; x holds those values, zeros beyond the row's end.
void PackedRows::pack_part(const Place& at, std::int64_t first, std::int64_t count, const float* x) {
    const std::int64_t most = group_rows(at.form), start = at.row / most * most;
    const std::int64_t group = std::min(most, at.rows - start), r = at.row - start;
    if (at.form == RowForm::f32) {
        float* to = reinterpret_cast<float*>(values_.data()) + start * at.blocks * 32 + first * 32 * group + r;
        for (std::int64_t k = 0; k < count * 32; ++k) to[k * group] = x[k];
    } else if (at.form == RowForm::bf16) {
        auto* to = reinterpret_cast<std::uint32_t*>(values_.data()) + (start * at.blocks + first * group + r) * 16;
        kernels::active_table().round_pairs(x, count, to, group * 16);
    } else {
        auto* q = reinterpret_cast<std::int8_t*>(values_.data()) + (start * at.blocks + first * group + r) * 32;
        auto* scales = reinterpret_cast<RowScale*>(scales_.data()) + start * at.blocks + first * group + r;
        kernels::active_table().quantise_row(x, count, q, group * 32, scales, group);
    }
}

// Calls values(row, first value, number of values, buffer) for this member's share of all blocks of 32, row by row, and
// packs what it returns: the buffer, or the values themselves where they end with a block.
template <typename F>
void PackedRows::pack_share(TeamMember& member, std::int64_t n, std::int64_t in, RowForm form, F values) {
    shape(member, n, in, form);
    const std::int64_t blocks = (in + 31) / 32;
    float* buffer = reinterpret_cast<float*>(scratch_.data()) + member.index() * blocks * 32;
    const auto share = member.range(n * blocks);
    for (std::int64_t at = share.begin; at < share.end;) {
        const std::int64_t row = at / blocks, first = at % blocks, count = std::min(blocks - first, share.end - at);
        const std::int64_t size = std::min(count * 32, in - first * 32);
        const float* from = values(row, first * 32, size, buffer);
        if (size < count * 32) {
            if (from != buffer)
                from = static_cast<const float*>(std::memcpy(buffer, from, static_cast<std::size_t>(size) * 4));
            std::fill(buffer + size, buffer + count * 32, 0.0F);
        }
        pack_part({row, n, blocks, form}, first, count, from);
        at += count;
    }
}

void PackedRows::assign(TeamMember& member, const float* x, std::int64_t n, std::int64_t in, std::int64_t ldx,
                        WeightFormat target) {
    pack_share(member, n, in, row_form(target),
               [=](std::int64_t row, std::int64_t first, std::int64_t, float*) { return x + row * ldx + first; });
}

void PackedRows::assign_silu_gate(TeamMember& member, const float* x, std::int64_t n, std::int64_t in, std::int64_t ldx,
                                  WeightFormat target) {
    pack_share(member, n, in, row_form(target),
               [=](std::int64_t row, std::int64_t first, std::int64_t size, float* buffer) {
                   const float* gate = x + row * ldx + first;
                   kernels::active_table().silu_gate_row(gate, gate + in, size, buffer);
                   return static_cast<const float*>(buffer);
               });
}

PackedRows::Parts PackedRows::prepare(TeamMember& member, std::int64_t n, std::int64_t in, WeightFormat target) {
    Parts parts;
    parts.rows_ = this, parts.n_ = n, parts.in_ = in, parts.form_ = row_form(target);
    shape(member, n, in, parts.form_);
    return parts;
}

void PackedRows::Parts::pack(std::int64_t row, std::int64_t first, std::int64_t count, const float* x) const {
    const Place at{row, n_, (in_ + 31) / 32, form_};
    const std::int64_t whole = count / 32, rest = count % 32;
    if (whole > 0) rows_->pack_part(at, first / 32, whole, x);
    if (rest == 0) return;
    float padded[32] = {};
    std::copy_n(x + whole * 32, rest, padded);
    rows_->pack_part(at, first / 32 + whole, 1, padded);
}

void PackedRows::assign_rms_norm(TeamMember& member, const float* x, std::int64_t n, std::int64_t in, std::int64_t ldx,
                                 const float* weight, float eps, WeightFormat target) {
    const RowForm form = row_form(target);
    shape(member, n, in, form);
    const std::int64_t blocks = (in + 31) / 32;
    float* buffer = reinterpret_cast<float*>(scratch_.data()) + member.index() * blocks * 32;
    std::fill(buffer + in, buffer + blocks * 32, 0.0F);
    const auto range = member.range(n);
    for (std::int64_t row = range.begin; row < range.end; ++row) {
        kernels::active_table().rms_norm_row(x + row * ldx, in, weight, eps, buffer);
        pack_part({row, n, blocks, form}, 0, blocks, buffer);
    }
}

}  // namespace outrider

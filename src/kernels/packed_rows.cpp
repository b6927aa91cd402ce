#include <cstring>
#include <new>

#include <outrider/core/error.hpp>
#include <outrider/tensor/packed_linear.hpp>

#include "kernel_table.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace outrider {

void AlignedBytes::Free::operator()(std::byte* p) const noexcept { std::free(p); }

void AlignedBytes::reserve(std::size_t bytes) {
    if (bytes <= capacity_) return;
    constexpr std::size_t kHuge = std::size_t{2} << 20;
    const std::size_t alignment = bytes >= 4 * kHuge ? kHuge : 64;
    const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    data_.reset(static_cast<std::byte*>(std::aligned_alloc(alignment, rounded)));
    if (data_ == nullptr) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (alignment == kHuge) madvise(data_.get(), rounded, MADV_HUGEPAGE);  // fewer page walks; no matter if refused
#endif
    capacity_ = rounded;
}

void PackedRows::shape(TeamMember& member, std::int64_t n, std::int64_t in, RowForm form) {
    require(n >= 0 && in > 0, "PackedRows: {} rows of {} values; rows need at least one value", n, in);
    const std::int64_t padded = (in + 31) / 32 * 32;
    const auto value_bytes = static_cast<std::size_t>(n * padded) * (form == RowForm::f32 ? 4 : 1);
    const auto scale_bytes = form == RowForm::f32 ? 0 : static_cast<std::size_t>(n * padded / 32) * sizeof(RowScale);
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

// x holds the row padded with zeros to a multiple of 32, unless in is one.
void PackedRows::pack_row(std::int64_t row, const float* x, std::int64_t n, std::int64_t in, RowForm form) {
    const std::int64_t padded = (in + 31) / 32 * 32, blocks = padded / 32;
    const std::int64_t first = row / kRowGroup * kRowGroup, group = std::min(kRowGroup, n - first), r = row - first;
    if (form == RowForm::f32) {
        float* to = reinterpret_cast<float*>(values_.data()) + first * padded + r;
        for (std::int64_t k = 0; k < padded; ++k) to[k * group] = x[k];
    } else {
        auto* q = reinterpret_cast<std::int8_t*>(values_.data()) + first * padded + r * 32;
        auto* scales = reinterpret_cast<RowScale*>(scales_.data()) + first * blocks + r;
        kernels::active_table().quantise_row(x, blocks, q, group * 32, scales, group);
    }
}

void PackedRows::assign(TeamMember& member, const float* x, std::int64_t n, std::int64_t in, std::int64_t ldx,
                        WeightFormat target) {
    const RowForm form = row_form(target);
    shape(member, n, in, form);
    const std::int64_t padded = (in + 31) / 32 * 32;
    float* scratch = reinterpret_cast<float*>(scratch_.data()) + member.index() * padded;
    if (in != padded) std::memset(scratch + in, 0, static_cast<std::size_t>(padded - in) * sizeof(float));
    const auto range = member.range(n);
    for (std::int64_t row = range.begin; row < range.end; ++row) {
        const float* from = x + row * ldx;
        if (in != padded) from = static_cast<const float*>(std::memcpy(scratch, from, static_cast<std::size_t>(in) * 4));
        pack_row(row, from, n, in, form);
    }
}

void PackedRows::assign_rms_norm(TeamMember& member, const float* x, std::int64_t n, std::int64_t in, std::int64_t ldx,
                                 const float* weight, float eps, WeightFormat target) {
    const RowForm form = row_form(target);
    shape(member, n, in, form);
    const std::int64_t padded = (in + 31) / 32 * 32;
    float* scratch = reinterpret_cast<float*>(scratch_.data()) + member.index() * padded;
    std::memset(scratch + in, 0, static_cast<std::size_t>(padded - in) * sizeof(float));
    const auto range = member.range(n);
    for (std::int64_t row = range.begin; row < range.end; ++row) {
        kernels::active_table().rms_norm_row(x + row * ldx, in, weight, eps, scratch);
        pack_row(row, scratch, n, in, form);
    }
}

void PackedRows::assign_silu_gate(TeamMember& member, const float* x, std::int64_t n, std::int64_t in,
                                  std::int64_t ldx, WeightFormat target) {
    const RowForm form = row_form(target);
    shape(member, n, in, form);
    const std::int64_t padded = (in + 31) / 32 * 32;
    float* scratch = reinterpret_cast<float*>(scratch_.data()) + member.index() * padded;
    std::memset(scratch + in, 0, static_cast<std::size_t>(padded - in) * sizeof(float));
    const auto range = member.range(n);
    for (std::int64_t row = range.begin; row < range.end; ++row) {
        kernels::active_table().silu_gate_row(x + row * ldx, x + row * ldx + in, in, scratch);
        pack_row(row, scratch, n, in, form);
    }
}

}  // namespace outrider

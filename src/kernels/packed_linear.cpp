#include "kernels/packed_linear.hpp"

#include <algorithm>
#include <cstring>

#include <outrider/core/error.hpp>

#include "kernel_table.hpp"
#include "pack.hpp"
#include "weight_memory.hpp"

namespace outrider {
namespace {

// Bytes behind the panels.
std::int64_t low_bytes(WeightFormat format, std::int64_t panels, std::int64_t blocks) {
    return format == WeightFormat::q8_planes
               ? (panels + kernels::kLowGroup - 1) / kernels::kLowGroup * blocks * kernels::kLowStep
               : 0;
}

// Calls pack(first output, outputs, zeroed panel, its low plane) for every panel, shared out over the team.
template <typename F>
std::shared_ptr<const std::byte> pack_panels(WeightFormat format, std::int64_t out, std::int64_t blocks,
                                             ThreadTeam* team, F pack) {
    const std::int64_t bytes = kernels::panel_bytes(format, blocks);
    const std::int64_t panels = (out + PackedLinear::kPanel - 1) / PackedLinear::kPanel;
    std::shared_ptr<std::byte> data = kernels::weight_memory(PackedLinear::bytes_of(format, out, 32 * blocks));
    const auto body = [&](TeamMember& member) {
        const auto range = member.range(panels);
        for (std::int64_t p = range.begin; p < range.end; ++p) {
            std::byte* to = data.get() + p * bytes;
            std::memset(to, 0, static_cast<std::size_t>(bytes));
            const std::int64_t first = p * PackedLinear::kPanel;
            pack(first, std::min(PackedLinear::kPanel, out - first), to,
                 data.get() + panels * bytes + kernels::low_at(p, blocks));
        }
    };
    if (team != nullptr) {
        team->run(body);
    } else {
        TeamMember alone;
        body(alone);
    }
    return data;
}

bool from_floats(WeightFormat f) {
    return f == WeightFormat::f32 || f == WeightFormat::bf16 || f == WeightFormat::int8 || f == WeightFormat::q4_1 ||
           f == WeightFormat::q5_1 || f == WeightFormat::q8_planes;
}

// Whether rows packed for one format serve the other, on every path.
bool same_rows(WeightFormat a, WeightFormat b) {
    const auto floats = [](WeightFormat f) { return f == WeightFormat::f32 || f == WeightFormat::bf16; };
    return a == b || (!floats(a) && !floats(b));
}

}  // namespace

std::string_view name(WeightFormat format) {
    switch (format) {
        case WeightFormat::f32: return "f32";
        case WeightFormat::bf16: return "bf16";
        case WeightFormat::int8: return "int8";
        case WeightFormat::q4_0: return "q4_0";
        case WeightFormat::q4_1: return "q4_1";
        case WeightFormat::q5_0: return "q5_0";
        case WeightFormat::q5_1: return "q5_1";
        case WeightFormat::q8_0: return "q8_0";
        case WeightFormat::q4_k: return "q4_k";
        case WeightFormat::q5_k: return "q5_k";
        case WeightFormat::q6_k: return "q6_k";
        case WeightFormat::q8_planes: return "q8_planes";
    }
    return "unknown";
}

RowForm row_form(WeightFormat format) {
    if (format == WeightFormat::bf16 && kernels::active_table().round_pairs != nullptr) return RowForm::bf16;
    return format == WeightFormat::f32 || format == WeightFormat::bf16 ? RowForm::f32 : RowForm::int8;
}

BlockShape block_shape(WeightFormat format) {
    switch (format) {
        case WeightFormat::f32: return {1, 4};
        case WeightFormat::bf16: return {1, 2};
        case WeightFormat::int8:
        case WeightFormat::q8_0:
        case WeightFormat::q8_planes: return {32, 34};
        case WeightFormat::q4_0: return {32, 18};
        case WeightFormat::q4_1: return {32, 20};
        case WeightFormat::q5_0: return {32, 22};
        case WeightFormat::q5_1: return {32, 24};
        case WeightFormat::q4_k: return {256, 144};
        case WeightFormat::q5_k: return {256, 176};
        case WeightFormat::q6_k: return {256, 210};
    }
    return {};
}

PackedLinear PackedLinear::pack(WeightFormat format, std::span<const float> weights, std::int64_t out, std::int64_t in,
                                ThreadTeam* team) {
    require(from_floats(format),
            "PackedLinear: cannot make {} from floats; pack as f32, bf16, int8, q8_planes, q4_1 or q5_1", name(format));
    require(out > 0 && in > 0 && static_cast<std::int64_t>(weights.size()) == out * in,
            "PackedLinear: {} floats for a matrix [{}, {}]", weights.size(), out, in);
    const std::int64_t blocks = (in + 31) / 32;
    PackedLinear result;
    result.parts_.push_back({format, out, (out + kPanel - 1) / kPanel,
                             pack_panels(format, out, blocks, team,
                                         [&](std::int64_t first, std::int64_t columns, std::byte* to, std::byte* low) {
                                             kernels::pack_floats(format, weights.data() + first * in, columns, in,
                                                                  blocks, to, low);
                                         })});
    result.in_ = in, result.out_ = out, result.panels_ = result.parts_[0].panels, result.format_ = format;
    return result;
}

PackedLinear PackedLinear::pack_blocks(WeightFormat format, std::span<const std::byte> file, std::int64_t out,
                                       std::int64_t in, ThreadTeam* team) {
    const BlockShape block = block_shape(format);
    require(out > 0 && in > 0 && in % block.values == 0,
            "PackedLinear: a matrix [{}, {}] does not divide into {} blocks of {}; dequantise it and pack floats", out,
            in, name(format), block.values);
    const std::int64_t row_bytes = in / block.values * block.bytes;
    require(static_cast<std::int64_t>(file.size()) == out * row_bytes,
            "PackedLinear: {} bytes for a {} matrix [{}, {}], expected {}", file.size(), name(format), out, in,
            out * row_bytes);
    if (format == WeightFormat::f32) {
        std::vector<float> floats(static_cast<std::size_t>(out * in));
        std::memcpy(floats.data(), file.data(), file.size());
        return pack(format, floats, out, in, team);
    }
    const WeightFormat as = format == WeightFormat::int8 ? WeightFormat::q8_0 : format;
    const std::int64_t blocks = (in + 31) / 32;
    PackedLinear result;
    result.parts_.push_back({format, out, (out + kPanel - 1) / kPanel,
                             pack_panels(format, out, blocks, team,
                                         [&](std::int64_t first, std::int64_t columns, std::byte* to, std::byte* low) {
                                             kernels::pack_file_blocks(as, file.data() + first * row_bytes, columns, in,
                                                                       blocks, to, low);
                                         })});
    result.in_ = in, result.out_ = out, result.panels_ = result.parts_[0].panels, result.format_ = format;
    return result;
}

PackedLinear PackedLinear::stack(const std::vector<PackedLinear>& matrices) {
    PackedLinear result;
    for (const PackedLinear& m : matrices) {
        require(m.in_ > 0, "PackedLinear: cannot stack an empty matrix");
        if (result.parts_.empty()) result.in_ = m.in_, result.format_ = m.format_;
        require(m.in_ == result.in_ && same_rows(m.format_, result.format_),
                "PackedLinear: cannot stack {} [{}, {}] onto {} matrices with {} inputs; multiply them one by one",
                name(m.format_), m.out_, m.in_, name(result.format_), result.in_);
        result.parts_.insert(result.parts_.end(), m.parts_.begin(), m.parts_.end());
        result.out_ += m.out_, result.panels_ += m.panels_;
    }
    return result;
}

std::size_t PackedLinear::bytes() const noexcept {
    std::size_t sum = 0;
    for (const Part& part : parts_) sum += bytes_of(part.format, part.out, in_);
    return sum;
}

std::size_t PackedLinear::bytes_of(WeightFormat format, std::int64_t out, std::int64_t in) {
    const std::int64_t blocks = (in + 31) / 32, panels = (out + kPanel - 1) / kPanel;
    return static_cast<std::size_t>(panels * kernels::panel_bytes(format, blocks) + low_bytes(format, panels, blocks));
}

namespace {

kernels::MultiplyArgs arguments(const PackedRows& x) {
    kernels::MultiplyArgs args;
    args.blocks = x.padded_in() / 32, args.rows = x.rows();
    if (x.form() == RowForm::f32)
        args.floats = x.floats();
    else if (x.form() == RowForm::bf16)
        args.pairs = x.pairs();
    else
        args.bytes = x.bytes(), args.scales = x.scales();
    return args;
}

}  // namespace

void PackedLinear::check_rows(const PackedRows& x) const {
    require(in_ > 0 && x.in() == in_ && x.form() == row_form(format_),
            "PackedLinear: rows of {} values packed as {} do not fit a {} matrix with {} inputs; assign them for its "
            "format",
            x.in(),
            x.form() == RowForm::f32    ? "f32"
            : x.form() == RowForm::bf16 ? "bf16"
                                        : "int8",
            name(format_), in_);
}

void PackedLinear::multiply(TeamMember::Range range, const PackedRows& x, float* y, std::int64_t ldy,
                            Store store) const {
    check_rows(x);
    kernels::MultiplyArgs args = arguments(x);
    args.ldy = ldy, args.add = store == Store::add;
    const kernels::Table& table = kernels::active_table();
    std::int64_t panel = 0, column = 0;  // of the part's first
    for (const Part& part : parts_) {
        args.begin = std::clamp<std::int64_t>(range.begin - panel, 0, part.panels);
        args.end = std::clamp<std::int64_t>(range.end - panel, 0, part.panels);
        if (args.begin < args.end) {
            args.panels = part.data.get(), args.panel_bytes = kernels::panel_bytes(part.format, args.blocks);
            args.low = args.panels + part.panels * args.panel_bytes;
            args.out = part.out, args.y = y + column;
            table.multiply[static_cast<std::size_t>(part.format)](args);
        }
        panel += part.panels, column += part.out;
    }
}

void PackedLinear::multiply_alone(TeamMember::Range panels, const PackedRows& x, float* y, std::int64_t ldy) const {
    check_rows(x);
    require(parts_.size() == 1, "PackedLinear: the panels of {} stacked matrices have no place of their own",
            parts_.size());
    const Part& part = parts_.front();
    kernels::MultiplyArgs args = arguments(x);
    args.panel_bytes = kernels::panel_bytes(part.format, args.blocks);
    args.panels = part.data.get(), args.low = args.panels + part.panels * args.panel_bytes;
    args.begin = panels.begin, args.end = panels.end, args.out = part.out;
    args.y = y - panels.begin * kPanel, args.ldy = ldy;
    kernels::active_table().multiply[static_cast<std::size_t>(part.format)](args);
}

}  // namespace outrider

#include "weight_forms.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace outrider::kernel_target {

std::optional<WeightFormat> fast_format(GgmlType type) {
    switch (type) {
        case GgmlType::q4_0: return WeightFormat::q4_0;
        case GgmlType::q4_1: return WeightFormat::q4_1;
        case GgmlType::q5_0: return WeightFormat::q5_0;
        case GgmlType::q5_1: return WeightFormat::q5_1;
        case GgmlType::q8_0: return WeightFormat::q8_0;
        case GgmlType::q4_k: return WeightFormat::q4_k;
        case GgmlType::q5_k: return WeightFormat::q5_k;
        case GgmlType::q6_k: return WeightFormat::q6_k;
        default: return {};
    }
}

GroupForm form_of(const WeightSource& source, const std::vector<std::string>& names, Weights wanted) {
    const auto all = [&](auto&& holds) {
        return std::ranges::all_of(names, [&](const std::string& name) { return holds(source.type(name)); });
    };
    GroupForm form;
    form.stored = (wanted == Weights::stored || wanted == Weights::automatic) &&
                  all([](GgmlType type) { return fast_format(type).has_value(); });
    if (wanted == Weights::int8) form.made = WeightFormat::int8;
    if (wanted == Weights::f32 ||
        (wanted == Weights::stored && all([](GgmlType type) { return type == GgmlType::f32; })))
        form.made = WeightFormat::f32;
    return form;
}

bool chosen_from(const ModelConfig& config, WeightFormat format, std::int64_t weights, std::size_t layer_bytes) {
    return (format == WeightFormat::q8_0 || format == WeightFormat::int8) && PackedLinear::path_chooses() &&
           static_cast<std::size_t>(weights) > layer_bytes && config.logit_scale == 1 && config.logit_cap == 0;
}

std::size_t packed_bytes(const WeightSource& source, const ModelConfig& config, Weights wanted) {
    static const std::vector<std::vector<std::string>> kGroups{{"q", "k", "v"}, {"o"}, {"gate", "up"}, {"down"}};
    std::size_t sum = 0;
    for (std::int64_t i = 0; i < config.layers; ++i)
        for (std::vector<std::string> names : kGroups) {
            for (std::string& name : names) name = fmt::format("{}.{}", i, name);
            const GroupForm form = form_of(source, names, wanted);
            for (const std::string& name : names)
                sum += PackedLinear::bytes_of(form.of(source.type(name)), source.rows(name), source.columns(name));
        }
    const std::string output = output_name(config);
    const std::int64_t out = source.rows(output), in = source.columns(output);
    const WeightFormat format = form_of(source, {output}, wanted).of(source.type(output));
    const bool planes = chosen_from(config, format, out * in, sum);
    return sum + PackedLinear::bytes_of(planes ? WeightFormat::q8_planes : format, out, in);
}

}  // namespace outrider::kernel_target

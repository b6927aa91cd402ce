// Bodies of published_medusa.hpp.
#pragma once

#include <outrider/draft/medusa/detail/published_medusa.hpp>

#include <outrider/draft/nn/detail/published_file.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

OUTRIDER_INLINE std::pair<MedusaConfig, MedusaWeights> read_published_medusa(const std::filesystem::path& path) {
    using namespace published;
    const NamedTensors file = open_heads(path);
    const std::string prefix(medusa_prefix(file));
    Taker take(file, prefix);
    const auto [last_head, last_block] = extent(file, prefix, ".linear.weight");
    require(last_head >= 0, ErrorKind::damaged_file,
            "{}: no tensor named {}0.0.linear.weight; this holds no Medusa heads", file.name(), prefix);
    MedusaConfig config;
    MedusaWeights weights;
    config.heads = last_head + 1, config.blocks = last_block + 1;
    check_medusa_config([&] {  // before anything is made of that size
        MedusaConfig sizes = config;
        sizes.hidden = 1;
        return sizes;
    }());
    bool own = false;
    for (std::int64_t i = 0; i < config.heads; ++i)
        own = own || file.has(detail::written("{}{}.{}.weight", prefix, i, config.blocks));
    config.output = own ? HeadOutput::own : HeadOutput::target;
    for (std::int64_t i = 0; i < config.heads; ++i) {
        weights.heads.emplace_back();
        for (std::int64_t j = 0; j < config.blocks; ++j)
            weights.heads.back().push_back({take(detail::written("{}{}.{}.linear.weight", prefix, i, j)),
                                            take(detail::written("{}{}.{}.linear.bias", prefix, i, j))});
        if (own) weights.output.push_back(take(detail::written("{}{}.{}.weight", prefix, i, config.blocks)));
    }
    take.finish();
    config.hidden = weights.heads[0][0].weight.size(-1);
    config.target_name = Hints(path).text("base_model_name_or_path", "published heads");
    check_medusa_config(config);
    check_medusa_weights(config, weights);
    return {std::move(config), std::move(weights)};
}

}  // namespace outrider

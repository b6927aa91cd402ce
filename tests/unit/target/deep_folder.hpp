// The small Hugging Face model with four layers: its two, and copies of them in the other order.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "tiny_copy.hpp"

namespace outrider::testing {

struct DeepFolder : TinyCopy {
    static constexpr std::int64_t kLayers = 4;

    DeepFolder() {
        configure("num_hidden_layers", kLayers);
        rewrite([](std::vector<SafeTensorView>& tensors) {
            const std::vector<SafeTensorView> own = tensors;
            for (const SafeTensorView& t : own)
                for (const int layer : {0, 1}) {
                    const std::string prefix = fmt::format("model.layers.{}.", layer);
                    if (!t.name.starts_with(prefix)) continue;
                    tensors.push_back(t);
                    tensors.back().name = fmt::format("model.layers.{}.{}", 3 - layer, t.name.substr(prefix.size()));
                }
        });
    }
};

}  // namespace outrider::testing

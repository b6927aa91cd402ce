// Layers whose residual streams a target delivers beside its final features: a list that only grows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include <outrider/core/error.hpp>

namespace outrider {

/// Safe to use from several threads.
class FeatureLayers {
public:
    /// `layers`, `hidden`: the model's.
    FeatureLayers(std::int64_t layers, std::int64_t hidden) : layers_(layers), hidden_(hidden) {}

    /// First column of each of `wanted`; those that are new get the next ones. Throws Error, and takes none, where a
    /// layer does not exist.
    std::vector<std::int64_t> columns(std::span<const std::int64_t> wanted) {
        for (const std::int64_t layer : wanted)
            require(layer >= 1 && layer < layers_,
                    "features after layer {}: this model has {} layers, expected 1 to {} (after the last one are the "
                    "final features, which are always there)",
                    layer, layers_, layers_ - 1);
        const std::scoped_lock lock(mutex_);
        std::vector<std::int64_t> result;
        for (const std::int64_t layer : wanted) {
            const auto place = std::find(asked_.begin(), asked_.end(), layer);
            result.push_back((1 + (place - asked_.begin())) * hidden_);
            if (place == asked_.end()) asked_.push_back(layer);
        }
        return result;
    }

    /// In the order of their columns.
    [[nodiscard]] std::vector<std::int64_t> asked() const {
        const std::scoped_lock lock(mutex_);
        return asked_;
    }

private:
    std::int64_t layers_, hidden_;
    mutable std::mutex mutex_;
    std::vector<std::int64_t> asked_;
};

}  // namespace outrider

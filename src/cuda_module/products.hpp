// Products by cuBLASLt, with one algorithm for every number of rows up to a tile.
#pragma once

#include <cublasLt.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <tuple>

#include "cuda/module.hpp"

namespace outrider::cuda {

class Products {
public:
    /// On the current stream. Empty, or why there is no such product.
    [[nodiscard]] std::string multiply(const Product& product);

private:
    /// What an algorithm is chosen for: device, columns in and out, types, and whether there is a bias.
    using Key = std::tuple<int, std::int64_t, std::int64_t, bool, bool, bool>;
    struct Chosen {
        cublasLtMatmulAlgo_t algorithm;
        std::size_t workspace = 0;
    };

    std::mutex mutex_;
    std::map<int, cublasLtHandle_t> handles_;
    std::map<Key, Chosen> chosen_;
};

}  // namespace outrider::cuda

// What computes Medusa's heads during decoding.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <outrider/core/detail/export.hpp>
#include <outrider/draft/medusa/detail/medusa_network.hpp>
#include <outrider/target/target_head.hpp>
#include <outrider/core/detail/thread_team.hpp>
#include <outrider/tree/tree_shape.hpp>
#include <span>
#include <vector>

namespace outrider {

class MedusaBackend {
public:
    virtual ~MedusaBackend() = default;
    [[nodiscard]] virtual std::size_t weight_bytes() const = 0;
    /// `features` [S, H] on any device. Fills `scores` [S * K, stride], row s * K + k: head k's scores for sequence s;
    /// columns from V on are left alone.
    virtual void run(const at::Tensor& features, std::int64_t stride, std::vector<float>& scores) = 0;
    /// The same, and the `ranks` likeliest tokens of each row instead of its scores. False where the backend leaves
    /// ranking to its caller.
    virtual bool rank(const at::Tensor& features, std::int64_t ranks, std::span<const TokenId> vocabulary,
                      std::vector<RankedTokens>& ranked) {
        (void)features, (void)ranks, (void)vocabulary, (void)ranked;
        return false;
    }
};

/// Tensor operations on any device.
[[nodiscard]] std::unique_ptr<MedusaBackend> make_medusa_tensors(const MedusaConfig& config,
                                                                 const MedusaWeights& weights, const TargetHead& head);

/// Packed matrices and the CPU's kernels, which the compiled library holds; headers alone have none. The team must live
/// as long as the backend. For sizes that fit them.
[[nodiscard]] OUTRIDER_API bool kernels_fit(const MedusaConfig& config);
[[nodiscard]] OUTRIDER_API std::unique_ptr<MedusaBackend> make_medusa_kernels(const MedusaConfig& config,
                                                                              const MedusaWeights& weights,
                                                                              const TargetHead& head, ThreadTeam& team);
#ifndef OUTRIDER_COMPILED
inline bool kernels_fit(const MedusaConfig&) { return false; }
inline std::unique_ptr<MedusaBackend> make_medusa_kernels(const MedusaConfig&, const MedusaWeights&, const TargetHead&,
                                                          ThreadTeam&) {
    return nullptr;
}
#endif

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/medusa/detail/medusa_backend-inl.hpp>
#endif

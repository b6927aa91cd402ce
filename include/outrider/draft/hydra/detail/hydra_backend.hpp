// What computes Hydra's heads and prefix layer during decoding.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <outrider/core/detail/export.hpp>
#include <outrider/draft/hydra/detail/hydra_network.hpp>
#include <outrider/target/target_head.hpp>
#include <outrider/core/detail/thread_team.hpp>
#include <span>

#include <outrider/draft/nn/detail/path_search.hpp>

namespace outrider {

/// The prefix layer's keys and values over one sequence, in whatever form the backend keeps.
class HydraCache {
public:
    virtual ~HydraCache() = default;
};

/// One sequence of a round: the rows that became known.
struct HydraRound {
    HydraCache* cache = nullptr;
    std::int64_t committed = 0;  ///< n, the new rows included; at least 1
    at::Tensor features;         ///< [rows, H] h_j of the new rows j = n - rows .. n - 1, at least one
    TokenId pending = kNoToken;  ///< x_n
};

class HydraBackend {
public:
    virtual ~HydraBackend() = default;
    [[nodiscard]] virtual std::unique_ptr<HydraCache> make_cache() const = 0;
    [[nodiscard]] virtual std::size_t weight_bytes() const = 0;
    /// Whether there is memory for so many tokens of the text. Where there is none, the sequence is not drafted for
    /// from then on, and `take_up` must not be told of it.
    [[nodiscard]] virtual bool has_room(HydraCache& cache, std::int64_t committed) {
        (void)cache, (void)committed;
        return true;
    }
    /// Takes up the new rows of every sequence; with `draft`, computes g_{n-1} of each for `scores`.
    virtual void take_up(std::span<const HydraRound> rounds, bool draft) = 0;
    /// PathSearch::Score. A row's sequence is its place in the last take_up.
    virtual void scores(std::span<const PathRow> rows, float* out, std::int64_t stride) = 0;

    /// Whether it finds best-first trees of so many nodes by itself; else its caller searches the scores.
    [[nodiscard]] virtual bool searches(std::int64_t nodes) const {
        (void)nodes;
        return false;
    }
    /// PathSearch::best_first for the sequences of the last take_up. Only where it `searches`.
    [[nodiscard]] virtual std::vector<TokenTree> search(std::int64_t nodes, double least) {
        (void)nodes, (void)least;
        return {};
    }
};

/// Tensor operations: on the CPU those of training with the host's search, on other devices make_hydra_lanes.
[[nodiscard]] std::unique_ptr<HydraBackend> make_hydra_tensors(const HydraConfig& config, const HydraWeights& weights,
                                                               const TargetHead& head, std::int64_t lane_bytes);

/// Few tensor operations for all sequences together, on any device; best-first trees are found where the scores are.
/// `lane_bytes`: most that keys and values of all sequences may take.
[[nodiscard]] OUTRIDER_API std::unique_ptr<HydraBackend> make_hydra_lanes(const HydraConfig& config,
                                                                          const HydraWeights& weights,
                                                                          const TargetHead& head,
                                                                          std::int64_t lane_bytes);

/// Packed matrices and the CPU's kernels, which the compiled library holds; headers alone have none. The team must live
/// as long as the backend. For sizes that fit them.
[[nodiscard]] OUTRIDER_API bool kernels_fit(const HydraConfig& config);
[[nodiscard]] OUTRIDER_API std::unique_ptr<HydraBackend> make_hydra_kernels(const HydraConfig& config,
                                                                            const HydraWeights& weights,
                                                                            const TargetHead& head, ThreadTeam& team,
                                                                            bool eight_bits);
#ifndef OUTRIDER_COMPILED
inline bool kernels_fit(const HydraConfig&) { return false; }
inline std::unique_ptr<HydraBackend> make_hydra_kernels(const HydraConfig&, const HydraWeights&, const TargetHead&,
                                                        ThreadTeam&, bool) {
    return nullptr;
}
#endif

/// Calls f(head, begin, end) for each run of rows of one head.
template <typename F>
void by_head(std::span<const PathRow> rows, F&& f) {
    for (std::size_t begin = 0, end = 0; begin < rows.size(); begin = end) {
        while (end < rows.size() && rows[end].path.size() == rows[begin].path.size()) ++end;
        f(static_cast<std::int64_t>(rows[begin].path.size()) - 1, static_cast<std::int64_t>(begin),
          static_cast<std::int64_t>(end));
    }
}

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/hydra/detail/hydra_backend-inl.hpp>
#endif

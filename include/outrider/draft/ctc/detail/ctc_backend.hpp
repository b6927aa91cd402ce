// What computes a CTC drafter's network during decoding.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/draft/ctc/detail/ctc_config.hpp>
#include <outrider/draft/ctc/detail/ctc_network.hpp>
#include <outrider/target/target_head.hpp>
#include <outrider/draft/ctc/detail/ctc_prediction.hpp>
#include <outrider/core/detail/thread_team.hpp>

namespace outrider {

/// Keys and values over u_0..u_{n-1} of one sequence, in whatever form the backend keeps.
class CtcCache {
public:
    virtual ~CtcCache() = default;
};

/// One sequence of a round: the rows that became known, and where its frames begin.
struct CtcRound {
    CtcCache* cache = nullptr;
    std::int64_t committed = 0;  ///< n, the new rows included
    std::vector<TokenId> next;   ///< [rows] x_{j+1} of the new rows j = n - rows .. n - 1
    at::Tensor features;         ///< [rows, (1 + k) H] h_j, then those of the config's k feature layers
    TokenId pending = kNoToken;  ///< x_n
    TokenId before = kNoToken;   ///< x_{n-1}; kNoToken while nothing is committed
};

/// Frames of all sequences of a round.
struct CtcRoundScores {
    std::vector<float> logits;  ///< [sequences * T, V], and behind them a row of each state that came with the frames
    std::vector<float> gate;    ///< [sequences * T]
};

class CtcBackend {
public:
    virtual ~CtcBackend() = default;
    [[nodiscard]] virtual std::unique_ptr<CtcCache> make_cache() const = 0;
    /// Of matrices, tables and vectors, the prediction network's apart.
    [[nodiscard]] virtual std::size_t weight_bytes() const = 0;
    /// Takes up the new rows of every sequence; with `frames`, returns their frames. `roots` [rows, H] are states of
    /// the prediction network that meet the same output rows, in the same product.
    virtual void run(std::span<CtcRound> rounds, bool frames, std::span<const float> roots, CtcRoundScores& scores) = 0;

    /// Whether there is memory for so many tokens of the text. Where there is none, the sequence is not drafted for
    /// from then on, and `run` and `search` must not be told of it.
    [[nodiscard]] virtual bool has_room(CtcCache& cache, std::int64_t committed) {
        (void)cache, (void)committed;
        return true;
    }
    /// Whether it finds best-first trees of so many nodes by itself; else its caller searches the scores.
    [[nodiscard]] virtual bool searches(std::int64_t nodes) const {
        (void)nodes;
        return false;
    }
    /// Takes up the new rows and returns every sequence's best-first tree; nodes of a Psi that is not above `least` are
    /// left out. Only where it `searches`.
    [[nodiscard]] virtual std::vector<TokenTree> search(std::span<CtcRound> rounds, std::int64_t nodes, double least) {
        (void)rounds, (void)nodes, (void)least;
        return {};
    }
};

/// What a CTC drafter computes with.
struct CtcBodies {
    std::unique_ptr<CtcBackend> backend;
    std::unique_ptr<CtcPrediction> prediction;  ///< null where frames know no prefix
};

struct CtcLaneOptions {
    std::int64_t lane_bytes = std::int64_t{4} << 30;  ///< most that keys and values of all sequences may take
    bool kernels = true;                              ///< those of beam_kernels.hpp where the device has them
};

/// Tensor operations: on the CPU those of training with the host's search, on other devices make_ctc_lanes.
[[nodiscard]] OUTRIDER_API CtcBodies make_ctc_tensors(const CtcConfig& config, CtcWeights weights,
                                                      const TargetHead& head, const CtcLaneOptions& options = {});

/// Few tensor operations for all sequences together, on any device; best-first trees are found where the frames are, by
/// kernels where the library has them for the device (beam_kernels.hpp).
[[nodiscard]] OUTRIDER_API CtcBodies make_ctc_lanes(const CtcConfig& config, const CtcWeights& weights,
                                                    const TargetHead& head, const CtcLaneOptions& options = {});

/// Packed matrices and the CPU's kernels, which the compiled library holds; headers alone have none. The team must live
/// as long as they. For sizes that fit them. `eight_bits`: of all matrices; else the layers' have 4, the others 5.
[[nodiscard]] OUTRIDER_API bool kernels_fit(const CtcConfig& config);
[[nodiscard]] OUTRIDER_API CtcBodies make_ctc_kernels(const CtcConfig& config, CtcWeights weights,
                                                      const TargetHead& head, ThreadTeam& team, bool eight_bits);
#ifndef OUTRIDER_COMPILED
inline bool kernels_fit(const CtcConfig&) { return false; }
inline CtcBodies make_ctc_kernels(const CtcConfig&, CtcWeights, const TargetHead&, ThreadTeam&, bool) { return {}; }
#endif

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/ctc/detail/ctc_backend-inl.hpp>
#endif

// What the loop checks of the values that parts of a host's own hand it: cheap, once a round, in every build.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/decode/detail/session.hpp>
#include <outrider/target/round.hpp>

namespace outrider {

/// One tree for each session that drafts (indices), in order, its root the pending token, at most `nodes` below it, its
/// tokens in the vocabulary. Throws Error.
OUTRIDER_API void check_trees(const std::vector<SequenceTree>& trees,
                              const std::vector<std::unique_ptr<Session>>& sessions,
                              std::span<const std::size_t> drafting, std::int64_t nodes, std::int64_t vocabulary);

/// Row offsets that fit the trees, and a row of logits as wide as the vocabulary for each node, or its argmax where no
/// tree's logits are read. Throws Error.
OUTRIDER_API void check_output(const TreeOutput& output, const std::vector<SequenceTree>& trees,
                               std::int64_t vocabulary);

/// One feedback for each session in order. Throws Error.
OUTRIDER_API void check_feedback(const Feedback& feedback, const std::vector<std::unique_ptr<Session>>& sessions);

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/decode/detail/round_checks-inl.hpp>
#endif

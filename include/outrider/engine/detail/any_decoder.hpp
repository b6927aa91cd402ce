// The decoder whose three parts are chosen at run time, compiled once in the library.
#pragma once

#include <memory>

#include <outrider/decode/speculative_decoder.hpp>

namespace outrider {

/// AnyDecoder decoder{std::make_unique<NgramDraft>(), std::make_unique<LlamaVerifier>(model),
///                    std::make_unique<Match>()};
using AnyDecoder =
    SpeculativeDecoder<std::unique_ptr<DraftModel>, std::unique_ptr<Verifier>, std::unique_ptr<AcceptancePolicy>>;

extern template class SpeculativeDecoder<std::unique_ptr<DraftModel>, std::unique_ptr<Verifier>,
                                         std::unique_ptr<AcceptancePolicy>>;

}  // namespace outrider

// The front door: what a host needs to decode with drafts. docs/api.md lists every other header, a line each.
#pragma once

#include <outrider/core/error.hpp>           // Error and its kinds: all that the library throws
#include <outrider/core/options.hpp>         // GenerationOptions: what a request asks for
#include <outrider/core/detail/version.hpp>  // kVersion

#include <outrider/decode/speculative_decoder.hpp>  // the loop, over any drafter, target and policy
#include <outrider/engine.hpp>                      // Engine: model, drafter and policy by name, in one call

#include <outrider/accept/draw.hpp>   // policies for drafts that were drawn
#include <outrider/accept/lossy.hpp>  // policies that change the text, and say so
#include <outrider/accept/match.hpp>  // the default policy: the text does not depend on the draft

#include <outrider/draft/ctc/ctc_draft.hpp>        // CTC drafting
#include <outrider/draft/hydra/hydra_draft.hpp>    // Hydra and Hydra++ heads
#include <outrider/draft/lm.hpp>                   // a smaller language model
#include <outrider/draft/medusa/medusa_draft.hpp>  // Medusa heads
#include <outrider/draft/merged.hpp>               // several drafters as one
#include <outrider/draft/ngram.hpp>                // look-ups in the text itself
#include <outrider/draft/none.hpp>                 // plain decoding

#include <outrider/target/llama_model.hpp>     // checkpoints of dense decoders
#include <outrider/target/llama_verifier.hpp>  // the target pass over them

// The front door: what a host needs to decode with drafts. docs/api.md lists every other header, a line each.
#pragma once

#include <outrider/core/error.hpp>    // Error: what every failure of a caller throws
#include <outrider/core/options.hpp>  // GenerationOptions: what a request asks for
#include <outrider/core/version.hpp>  // kVersion

#include <outrider/decode/speculative_decoder.hpp>  // the loop, over any drafter, target and policy
#include <outrider/engine/any_decoder.hpp>          // the same with its three parts chosen at run time
#include <outrider/engine/make_drafter.hpp>         // drafters by name
#include <outrider/engine/make_policy.hpp>          // policies by name

#include <outrider/accept/match.hpp>   // the default policies
#include <outrider/accept/match.hpp>
#include <outrider/draft/ctc/ctc_draft.hpp>   // the drafters
#include <outrider/draft/hydra/hydra_draft.hpp>
#include <outrider/draft/lm.hpp>
#include <outrider/draft/medusa/medusa_draft.hpp>
#include <outrider/draft/merged.hpp>
#include <outrider/draft/ngram.hpp>
#include <outrider/draft/none.hpp>
#include <outrider/target/llama_model.hpp>     // checkpoints of the Llama family
#include <outrider/target/llama_verifier.hpp>  // and the target pass over them

// All that outrider::headers offers to a host.
#pragma once

#include <outrider/accept/draw.hpp>
#include <outrider/accept/lossy.hpp>
#include <outrider/accept/match.hpp>
#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/draft/ctc/ctc_draft.hpp>
#include <outrider/draft/hydra/hydra_draft.hpp>
#include <outrider/draft/lm.hpp>
#include <outrider/draft/medusa/medusa_draft.hpp>
#include <outrider/draft/merged.hpp>
#include <outrider/draft/ngram.hpp>
#include <outrider/draft/none.hpp>

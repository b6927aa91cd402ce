// The bodies of the room, compiled once.
#include <outrider/accept/detail/draw-inl.hpp>
#include <outrider/accept/detail/edited_rows-inl.hpp>
#include <outrider/accept/detail/gumbel-inl.hpp>
#include <outrider/accept/detail/logit_rows-inl.hpp>
#include <outrider/accept/detail/logprob_rows-inl.hpp>
#include <outrider/accept/detail/lossy-inl.hpp>
#include <outrider/accept/detail/match-inl.hpp>
#include <outrider/accept/detail/target_law-inl.hpp>
#include <outrider/accept/detail/warp-inl.hpp>

namespace outrider {

template class DrawAccept<DrawRule::rejection>;
template class DrawAccept<DrawRule::multi_step>;
template class DrawAccept<DrawRule::k_seq>;
template class DrawAccept<DrawRule::unified>;
template class DrawAccept<DrawRule::block>;
template class DrawAccept<DrawRule::traversal>;
template class LossyAccept<TypicalCriterion>;
template class LossyAccept<TopBetaCriterion>;
template class LossyAccept<DistanceCriterion>;

}  // namespace outrider

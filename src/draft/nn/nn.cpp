// The bodies of the room, compiled once.
#include <outrider/draft/nn/detail/attention-inl.hpp>
#include <outrider/draft/nn/detail/compact_drafter-inl.hpp>
#include <outrider/draft/nn/detail/drafter_files-inl.hpp>
#include <outrider/draft/nn/detail/lane_layers-inl.hpp>
#include <outrider/draft/nn/detail/layers-inl.hpp>
#include <outrider/draft/nn/detail/padded_context-inl.hpp>
#include <outrider/draft/nn/detail/path_sampling-inl.hpp>
#include <outrider/draft/nn/detail/path_search-inl.hpp>
#include <outrider/draft/nn/detail/published_heads-inl.hpp>
#include <outrider/draft/nn/detail/score_rows-inl.hpp>

// The bodies of the room, compiled once.
#include <outrider/draft/ctc/detail/ctc_backend-inl.hpp>
#include <outrider/draft/ctc/detail/ctc_beam-inl.hpp>
#include <outrider/draft/ctc/detail/ctc_config-inl.hpp>
#include <outrider/draft/ctc/detail/ctc_draft-inl.hpp>
#include <outrider/draft/ctc/detail/ctc_network-inl.hpp>
#include <outrider/draft/ctc/detail/ctc_per_frame-inl.hpp>
#include <outrider/draft/ctc/detail/ctc_search-inl.hpp>

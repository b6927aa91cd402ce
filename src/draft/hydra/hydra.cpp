// The bodies of the room, compiled once.
#include <outrider/draft/hydra/detail/hydra_backend-inl.hpp>
#include <outrider/draft/hydra/detail/hydra_config-inl.hpp>
#include <outrider/draft/hydra/detail/hydra_draft-inl.hpp>
#include <outrider/draft/hydra/detail/hydra_network-inl.hpp>
#include <outrider/draft/hydra/detail/published_hydra-inl.hpp>

// The bodies of the room, compiled once.
#include <outrider/draft/medusa/detail/medusa_backend-inl.hpp>
#include <outrider/draft/medusa/detail/medusa_config-inl.hpp>
#include <outrider/draft/medusa/detail/medusa_draft-inl.hpp>
#include <outrider/draft/medusa/detail/medusa_network-inl.hpp>
#include <outrider/draft/medusa/detail/published_medusa-inl.hpp>

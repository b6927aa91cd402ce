// The bodies of the room, compiled once.
#include <outrider/decode/detail/answer_rules-inl.hpp>
#include <outrider/decode/detail/owed_feedback-inl.hpp>
#include <outrider/decode/detail/prompt_intake-inl.hpp>
#include <outrider/decode/detail/round_checks-inl.hpp>
#include <outrider/decode/detail/sequence_book-inl.hpp>
#include <outrider/decode/detail/session-inl.hpp>

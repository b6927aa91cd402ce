// The bodies of the room, compiled once.
#include <outrider/draft/detail/draft_trie-inl.hpp>
#include <outrider/draft/detail/lm-inl.hpp>
#include <outrider/draft/detail/merged-inl.hpp>
#include <outrider/draft/detail/ngram-inl.hpp>
#include <outrider/draft/detail/ngram_growth-inl.hpp>

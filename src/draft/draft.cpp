// The bodies of the room, compiled once.
#include <outrider/draft/detail/draft_trie-inl.hpp>
#include <outrider/draft/detail/ngram_growth-inl.hpp>
#include <outrider/draft/lm-inl.hpp>
#include <outrider/draft/merged-inl.hpp>
#include <outrider/draft/ngram-inl.hpp>

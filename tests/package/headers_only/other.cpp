// The second translation unit: all headers again.
#include "everything.hpp"

outrider::NgramDraft drafter_of_the_other_unit() { return outrider::NgramDraft{}; }

// The second translation unit: all headers again.
#include <outrider/outrider.hpp>

const char* version_of_the_other_unit() { return outrider::kVersion; }

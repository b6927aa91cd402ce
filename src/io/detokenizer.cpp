#include <outrider/core/detokenizer.hpp>

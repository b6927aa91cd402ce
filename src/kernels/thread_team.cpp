#include <outrider/core/types.hpp>

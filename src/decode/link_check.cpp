#include <outrider/interface/concepts.hpp>

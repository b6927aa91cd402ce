#include <outrider/engine/detail/any_decoder.hpp>

namespace outrider {

template class SpeculativeDecoder<std::unique_ptr<DraftModel>, std::unique_ptr<Verifier>,
                                  std::unique_ptr<AcceptancePolicy>>;

}  // namespace outrider

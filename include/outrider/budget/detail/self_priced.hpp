// A drafter that decides by itself when drafting pays.
#pragma once

#include <type_traits>

#include <outrider/core/detail/export.hpp>

namespace outrider {

/// A drafter may be one beside being a DraftModel (a merged one is): where the budget names prices it leaves out by
/// itself what does not pay at them, part by part, and so it is asked in every round.
class OUTRIDER_API SelfPriced {
public:
    virtual ~SelfPriced() = default;

    /// Asked once, before the first round that could draft.
    [[nodiscard]] virtual bool rests() const = 0;
};

/// Whether a drafter of any type is one, and rests.
template <typename Drafter>
[[nodiscard]] bool rests_by_itself(const Drafter& drafter) {
    if constexpr (requires {
                      { drafter.rests() };
                  }) {
        return drafter.rests();
    } else if constexpr (std::is_polymorphic_v<Drafter>) {
        const auto* priced = dynamic_cast<const SelfPriced*>(&drafter);
        return priced != nullptr && priced->rests();
    } else {
        return false;
    }
}

}  // namespace outrider

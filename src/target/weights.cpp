#include <outrider/target/model_config.hpp>

#include <array>

#include <outrider/core/error.hpp>

namespace outrider {
namespace {

constexpr std::array<std::pair<Weights, std::string_view>, 5> kNames{{{Weights::automatic, "auto"},
                                                                      {Weights::stored, "stored"},
                                                                      {Weights::bf16, "bf16"},
                                                                      {Weights::f32, "f32"},
                                                                      {Weights::int8, "int8"}}};

}  // namespace

Weights weights_by_name(std::string_view name) {
    if (name == "automatic") return Weights::automatic;
    for (const auto& [weights, known] : kNames)
        if (name == known) return weights;
    fail("weights \"{}\" are unknown; expected auto, stored, bf16, f32 or int8", name);
}

std::string_view name_of(Weights weights) {
    for (const auto& [known, name] : kNames)
        if (weights == known) return name;
    fail("Weights has no value {}", static_cast<int>(weights));
}

}  // namespace outrider

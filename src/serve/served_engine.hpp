// An AsyncEngine, served.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include <outrider/engine/async_engine.hpp>

#include "serve/constraints.hpp"
#include "serve/served.hpp"

namespace outrider::serve {

/// `engine` lives longer.
class ServedEngine final : public Served {
public:
    explicit ServedEngine(AsyncEngine& engine);

    [[nodiscard]] Prompt chat(const Chat& chat) const override;
    [[nodiscard]] Prompt text(std::string_view text) const override;
    [[nodiscard]] std::int64_t context() const override;
    [[nodiscard]] TokenName name(TokenId token) const override;
    [[nodiscard]] std::shared_ptr<const Constraint> json(const std::string& schema) override;
    void submit(Prompt prompt, GenerationOptions options, AsyncRequest request) override;
    [[nodiscard]] AsyncMetrics metrics() const override;

private:
    AsyncEngine& engine_;
    Constraints constraints_;
};

}  // namespace outrider::serve

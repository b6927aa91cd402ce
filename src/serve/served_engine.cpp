#include "serve/served_engine.hpp"

#include <utility>

#include <outrider/target/llama_model.hpp>

namespace outrider::serve {

ServedEngine::ServedEngine(AsyncEngine& engine)
    : engine_(engine), constraints_(engine.model().tokenizer(), engine.model().config().vocabulary) {}

Prompt ServedEngine::chat(const Chat& chat) const { return engine_.model().chat(chat.messages, chat.variables); }
Prompt ServedEngine::text(std::string_view text) const { return engine_.model().raw(text); }
std::int64_t ServedEngine::context() const { return engine_.model().config().context; }

TokenName ServedEngine::name(TokenId token) const {
    const Tokenizer& tokenizer = engine_.model().tokenizer();
    std::string bytes = tokenizer.bytes(token);
    std::string name = bytes.empty() ? tokenizer.piece(token) : std::string();
    return {std::move(bytes), std::move(name)};
}

std::shared_ptr<const Constraint> ServedEngine::json(const std::string& schema) { return constraints_.of(schema); }

void ServedEngine::submit(Prompt prompt, GenerationOptions options, AsyncRequest request) {
    (void)engine_.submit(std::move(prompt), std::move(options), std::move(request));
}
AsyncMetrics ServedEngine::metrics() const { return engine_.metrics(); }

}  // namespace outrider::serve

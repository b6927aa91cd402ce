#include <catch2/catch_all.hpp>

#include <map>
#include <memory>
#include <random>

#include <outrider/decode/detail/stop_filter.hpp>
#include <outrider/decode/detail/token_stream.hpp>

using namespace outrider;

namespace {

/// Token i is the string it was made with.
class Pieces final : public Detokenizer {
public:
    explicit Pieces(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {}
    [[nodiscard]] std::string bytes(TokenId token) const override {
        return pieces_.at(static_cast<std::size_t>(token));
    }

private:
    std::vector<std::string> pieces_;
};

struct Run {
    std::vector<std::string> calls;
    std::string text;
    std::vector<TokenId> tokens;
    FinishReason finish = FinishReason::running;
};

Run stream(const std::vector<std::string>& pieces, GenerationOptions options, std::vector<TokenId> end_ids = {},
           int stop_at_call = -1) {
    Run run;
    const Prompt prompt{{0}, std::move(end_ids), std::make_shared<Pieces>(pieces)};
    TokenStream out(1, prompt, options, options.max_tokens, [&](std::string_view text) {
        run.calls.emplace_back(text);
        return static_cast<int>(run.calls.size()) != stop_at_call;
    });
    for (std::size_t i = 0; i < pieces.size(); ++i)
        if (!out.push(static_cast<TokenId>(i))) break;
    run.text = out.text(), run.tokens = out.tokens(), run.finish = out.finish();
    return run;
}

std::string joined(const std::vector<std::string>& parts) {
    std::string all;
    for (const std::string& part : parts) all += part;
    return all;
}

}  // namespace

TEST_CASE("stop strings end the text across token borders", "[stop]") {
    const Run run = stream({"one ", "two", " STO", "P", " three"}, {.stop = {"STOP"}});
    CHECK(run.text == "one two ");
    CHECK(run.tokens.size() == 4);  // every token that the target chose
    CHECK(run.finish == FinishReason::stop);
    CHECK(joined(run.calls) == run.text);
    CHECK(stream({"a", "bSTOPc"}, {.stop = {"STOP"}}).text == "ab");
    CHECK(stream({"STOP"}, {.stop = {"STOP"}}).text.empty());
}

TEST_CASE("text is held back only while it could become a stop string", "[stop]") {
    const Run run = stream({"a", "aab", "x", "aa", "y"}, {.max_tokens = 5, .stop = {"aabb", "aac"}});
    CHECK(run.calls == std::vector<std::string>{"a", "aabx", "aay"});
    CHECK(run.finish == FinishReason::length);
    const Run end = stream({"x", "aab"}, {.max_tokens = 2, .stop = {"aabb"}});
    CHECK(end.text == "xaab");  // what was held comes out when the text ends otherwise
    CHECK(end.calls == std::vector<std::string>{"x", "aab"});
}

TEST_CASE("of several stop strings the one that is complete first ends the text", "[stop]") {
    CHECK(stream({"xabc"}, {.stop = {"abc", "b"}}).text == "xa");
    CHECK(stream({"xabc"}, {.stop = {"bc", "abc", "c"}}).text == "x");  // three end together: the longest
    CHECK(stream({"\n", "\n", "q"}, {.stop = {"\n\n"}}).text.empty());
}

TEST_CASE("the filter's result does not depend on how the text is cut", "[stop]") {
    std::mt19937 engine(3);
    for (int trial = 0; trial < 3000; ++trial) {
        std::string text;
        for (std::size_t i = engine() % 30; i > 0; --i) text += static_cast<char>('a' + engine() % 2);
        std::vector<std::string> stops(1 + engine() % 3);
        for (std::string& stop : stops)
            for (std::size_t i = 1 + engine() % 6; i > 0; --i) stop += static_cast<char>('a' + engine() % 2);
        std::size_t end = text.size();  // where the text must end, by trying every end
        bool found = false;
        for (std::size_t e = 1; e <= text.size() && !found; ++e)
            for (const std::string& stop : stops)
                if (std::string_view(text).substr(0, e).ends_with(stop)) {
                    end = found ? std::min(end, e - stop.size()) : e - stop.size();
                    found = true;
                }
        StopFilter filter(stops);
        std::string out;
        for (std::size_t i = 0; i < text.size();) {
            const std::size_t n = 1 + engine() % 4;
            out += filter.push(std::string_view(text).substr(i, n));
            i += n;
            if (filter.stopped()) break;
            bool hope = out.size() == std::min(i, text.size());  // nothing is held, or its beginning is a stop's
            for (const std::string& stop : stops)
                hope |=
                    stop.starts_with(std::string_view(text).substr(out.size(), std::min(i, text.size()) - out.size()));
            CHECK(hope);
        }
        CHECK(filter.stopped() == found);
        if (!filter.stopped()) out += filter.flush();
        CHECK(out == text.substr(0, end));
    }
}

TEST_CASE("characters are never cut", "[utf8]") {
    const std::string smile = "\xF0\x9F\x98\x80";
    const Run run = stream({std::string("a").append(smile, 0, 1), smile.substr(1, 2), smile.substr(3).append("b")},
                           {.max_tokens = 3});
    CHECK(run.calls == std::vector<std::string>{"a", smile + "b"});
    const Run cut = stream({"a", smile.substr(0, 2)}, {.max_tokens = 2});
    CHECK(cut.text == "a\xEF\xBF\xBD");  // the limit fell inside a character
    const Run stop = stream({std::string("x").append(smile, 0, 2), smile.substr(2).append("y")}, {.stop = {smile}});
    CHECK(stop.text == "x");
}

TEST_CASE("a stop string that the last words complete ends the text as any other", "[stop]") {
    // The limit falls inside a character, whose replacement completes the stop string.
    const Run run = stream({"a", "b\xC3", "x"}, {.max_tokens = 2, .stop = {"b\xEF\xBF\xBD"}});
    CHECK(run.text == "a");
    CHECK(run.finish == FinishReason::stop);
    const Run other = stream({"a", "b\xC3", "x"}, {.max_tokens = 2, .stop = {"c"}});
    CHECK(other.text == "ab\xEF\xBF\xBD");
    CHECK(other.finish == FinishReason::length);
}

TEST_CASE("the end token is the last token and adds no text", "[stream]") {
    const Run run = stream({"a", "b", "<end>", "c"}, {}, {2});
    CHECK(run.tokens == std::vector<TokenId>{0, 1, 2});
    CHECK(run.text == "ab");
    CHECK(run.finish == FinishReason::stop);
    CHECK(stream({"a", "b", "<end>", "c"}, {.max_tokens = 4, .stop_at_end = false}, {2}).text == "ab<end>c");
    CHECK(stream({"a", "b", "<end>", "c"}, {.stop_at_end = false, .end_ids = {1}}, {2}).text == "a");
    const Run held = stream({"x", "aa", "<end>"}, {.stop = {"aab"}}, {2});
    CHECK(held.text == "xaa");
    CHECK(stream({"a", "b"}, {.max_tokens = 2}, {1}).finish == FinishReason::stop);  // both at once: the end token
}

TEST_CASE("a callback that says stop ends the text with what it saw", "[stream]") {
    const Run run = stream({"a", "b", "c"}, {}, {}, 2);
    CHECK(run.text == "ab");
    CHECK(run.tokens.size() == 2);
    CHECK(run.finish == FinishReason::cancelled);
    CHECK(stream({"a", "b"}, {.max_tokens = 2}, {}, 2).finish == FinishReason::length);
}

// Text out of a stream of bytes, never half a UTF-8 character: what a host prints while tokens arrive.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace outrider {

/// Feed the bytes of tokens as they come; each call returns what is complete. Bytes that cannot start or continue a
/// character become U+FFFD at once, one for each maximal ill-formed part (Unicode 15, section 3.9, table 3-8), so they
/// never hold up later text. All that was returned, joined, is the same however the bytes were cut into calls.
class Utf8Stream {
public:
    /// Appends `bytes` and returns the text that is complete now. At most three bytes are kept back.
    [[nodiscard]] std::string feed(std::string_view bytes) {
        std::string text;
        text.reserve(bytes.size() + kept_.size());
        for (const char c : bytes) put(static_cast<std::uint8_t>(c), text);
        return text;
    }

    /// Ends the text: what is left of an unfinished character comes out as one U+FFFD. The stream is empty afterwards.
    [[nodiscard]] std::string flush() {
        std::string text = kept_.empty() ? std::string() : std::string(kReplacement);
        kept_.clear();
        missing_ = 0;
        return text;
    }

    /// Bytes of an unfinished character, kept back (0 to 3).
    [[nodiscard]] std::size_t pending() const noexcept { return kept_.size(); }

private:
    static constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

    void put(std::uint8_t byte, std::string& text) {
        if (missing_ > 0) {
            if (byte >= low_ && byte <= high_) {
                kept_.push_back(static_cast<char>(byte));
                low_ = 0x80, high_ = 0xBF;
                if (--missing_ == 0) text += kept_, kept_.clear();
                return;
            }
            text += flush();  // cut short; this byte starts anew
        }
        start(byte, text);
    }

    /// Second bytes are narrower after E0, ED, F0 and F4 (no overlong forms, surrogates, or code points above 10FFFF).
    void start(std::uint8_t byte, std::string& text) {
        if (byte < 0x80) {
            text.push_back(static_cast<char>(byte));
        } else if (byte < 0xC2 || byte > 0xF4) {
            text += kReplacement;
        } else {
            missing_ = byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
            low_ = byte == 0xE0 ? 0xA0 : byte == 0xF0 ? 0x90 : 0x80;
            high_ = byte == 0xED ? 0x9F : byte == 0xF4 ? 0x8F : 0xBF;
            kept_.push_back(static_cast<char>(byte));
        }
    }

    std::string kept_;
    int missing_ = 0;
    std::uint8_t low_ = 0x80, high_ = 0xBF;
};

/// All of `bytes` as valid UTF-8, ill-formed parts replaced by U+FFFD.
[[nodiscard]] inline std::string to_valid_utf8(std::string_view bytes) {
    Utf8Stream stream;
    std::string text = stream.feed(bytes);
    return text += stream.flush();
}

/// True when `bytes` is well-formed UTF-8 throughout.
[[nodiscard]] inline bool is_valid_utf8(std::string_view bytes) { return to_valid_utf8(bytes) == bytes; }

}  // namespace outrider

#include "normalizer.hpp"

#include <optional>
#include <string_view>
#include <utility>

#include <outrider/core/error.hpp>

#include "pre_tokenizer.hpp"
#include "unicode_text.hpp"

namespace outrider::detail {
namespace {

/// `step[key]`, which must be a string.
std::string string_of(const std::string& name, const Json& step, const char* key) {
    const Json& value = field(step, key);
    if (!value.is_string())
        fail(ErrorKind::damaged_file, "{}: the normalizer {} has no string {}", name, shown(step), key);
    return value.get<std::string>();
}

bool flag_of(const std::string& name, const Json& step, const char* key) {
    const Json& value = field(step, key);
    if (!value.is_boolean())
        fail(ErrorKind::damaged_file, "{}: the normalizer {} has no {}, true or false", name, shown(step), key);
    return value.get<bool>();
}

std::function<std::string(std::string)> replacement(const std::string& name, const Json& step) {
    const Json& pattern = field(step, "pattern");
    const std::string content = string_of(name, step, "content");
    const bool plain = field(pattern, "String").is_string();
    const std::string what = string_of(name, pattern, plain ? "String" : "Regex");
    return [content, expression = WordPattern(plain ? detail::quoted(what) : what)](const std::string& text) {
        std::string result;
        for (const Cut& cut : expression.cut(text, true)) result += cut.match ? std::string_view(content) : cut.text;
        return result;
    };
}

/// Leaves out the control characters and makes spaces of the separators that the library's Nmt names.
std::string nmt(std::string_view text) {
    std::string result;
    result.reserve(text.size());
    while (!text.empty()) {
        const Character c = first_character(text);
        text.remove_prefix(c.bytes);
        const char32_t p = c.point;
        const bool dropped =
            (p >= 0x01 && p <= 0x08) || p == 0x0B || (p >= 0x0E && p <= 0x1F) || p == 0x7F || p == 0x8F || p == 0x9F;
        const bool space = p == 0x09 || p == 0x0A || p == 0x0C || p == 0x0D || p == 0x1680 ||
                           (p >= 0x200B && p <= 0x200F) || p == 0x2028 || p == 0x2029 || p == 0x2581 || p == 0xFEFF ||
                           p == 0xFFFD;
        if (!dropped) put_character(result, space ? U' ' : p);
    }
    return result;
}

std::optional<NormalForm> form_of(std::string_view type) {
    if (type == "NFC") return NormalForm::nfc;
    if (type == "NFD") return NormalForm::nfd;
    if (type == "NFKC") return NormalForm::nfkc;
    if (type == "NFKD") return NormalForm::nfkd;
    return std::nullopt;
}

}  // namespace

void Normalizer::add(const std::string& name, const Json& step) {
    const std::string type = detail::text(step, "type");
    if (const std::optional<NormalForm> form = form_of(type)) {
        steps_.emplace_back([which = *form](const std::string& text) { return normalized(text, which); });
    } else if (type == "Sequence") {
        const Json& steps = field(step, "normalizers");
        if (!steps.is_array())
            fail(ErrorKind::damaged_file, "{}: the normalizer {} has no list of normalizers", name, shown(step));
        for (const Json& inner : steps) add(name, inner);
    } else if (type == "Nmt")
        steps_.emplace_back(nmt);
    else if (type == "Lowercase")
        steps_.emplace_back(lower_case);
    else if (type == "StripAccents")
        steps_.emplace_back(without_marks);
    else if (type == "Replace")
        steps_.push_back(replacement(name, step));
    else if (type == "Strip") {
        const bool left = flag_of(name, step, "strip_left"), right = flag_of(name, step, "strip_right");
        steps_.emplace_back([left, right](std::string text) {
            if (left) text.erase(0, white_space_at_front(text));
            if (right) text.resize(text.size() - white_space_at_end(text));
            return text;
        });
    } else if (type == "Prepend") {
        prefix_ = string_of(name, step, "prepend");
        steps_.emplace_back(
            [prefix = prefix_](const std::string& text) { return text.empty() ? text : prefix + text; });
    } else {
        fail(ErrorKind::not_supported,
             "{}: the normalizer {} is not supported; expected NFC, NFD, NFKC, NFKD, Nmt, Lowercase, Strip, "
             "StripAccents, Prepend, Replace or a Sequence of them",
             name, shown(step));
    }
}

Normalizer Normalizer::read(const std::string& name, const Json& normalizer) {
    Normalizer result;
    if (!normalizer.is_null()) result.add(name, normalizer);
    return result;
}

std::string Normalizer::operator()(std::string text) const {
    const std::size_t most = 64 * text.size() + (std::size_t{1} << 20);  // no published one comes near
    for (const auto& step : steps_) {
        text = step(std::move(text));
        require(text.size() <= most, ErrorKind::damaged_file,
                "the tokenizer's normalizer makes a text more than 64 times as long");
    }
    return text;
}

}  // namespace outrider::detail

// json.dumps of Python, which the filter tojson of `transformers` is.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "unicode.hpp"
#include "value.hpp"

namespace outrider::jinja {
namespace {

std::string escaped(std::string_view run, bool ascii) {
    std::string out;
    for (std::size_t at = 0; at < run.size();) {
        const char32_t c = next_code_point(run, at);
        switch (c) {
            case '"': out += "\\\""; break;
            case '\\': out += "\\\\"; break;
            case '\n': out += "\\n"; break;
            case '\r': out += "\\r"; break;
            case '\t': out += "\\t"; break;
            case '\b': out += "\\b"; break;
            case '\f': out += "\\f"; break;
            default:
                if (c < 0x20 || (ascii && c >= 0x7F && c < 0x10000)) {
                    out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
                } else if (ascii && c >= 0x10000) {
                    const auto above = static_cast<unsigned>(c) - 0x10000;
                    out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (above >> 10), 0xDC00 + (above & 0x3FF));
                } else {
                    append_code_point(out, c);
                }
        }
    }
    return out;
}

class JsonWriter {
public:
    JsonWriter(const JsonStyle& style, Meter& meter) : style_(style), meter_(meter) {}

    void write(const Value& value) {
        meter_.step();
        if (const String* string = value.string()) return write_string(string->text);
        if (const List* list = value.list();
            list != nullptr && (list->kind == Series::list || list->kind == Series::tuple))
            return write_all(list->items.size(), "[", "]", [&](std::size_t i) { write(list->items[i]); });
        if (const Dict* dict = value.dict()) return write_dict(*dict);
        out_.append(scalar(value));
    }

    [[nodiscard]] Text take() {
        meter_.made(out_.size());
        return std::move(out_);
    }

private:
    static std::string scalar(const Value& value) {
        if (value.is_none()) return "null";
        if (value.is<bool>()) return value.integer() != 0 ? "true" : "false";
        if (value.is_integer()) return fmt::format("{}", value.integer());
        if (value.is<double>()) {
            const double number = value.number();
            return std::isnan(number)   ? "NaN"
                   : std::isinf(number) ? (number > 0 ? "Infinity" : "-Infinity")
                                        : printed_number(number);
        }
        fail("tojson: a value of the type {} has no JSON", type_name(value));
    }

    void write_string(const Text& text) {
        meter_.made(text.size());
        out_.append("\"");
        text.for_runs([&](std::string_view run, Origin origin) { out_.append(escaped(run, style_.ascii), origin); });
        out_.append("\"");
    }

    template <typename F>
    void write_all(std::size_t count, std::string_view begin, std::string_view end, F&& write_one) {
        out_.append(begin);
        ++depth_;
        for (std::size_t i = 0; i < count; ++i) {
            if (i > 0) out_.append(style_.item);
            new_line();
            write_one(i);
            meter_.made(style_.item.size() + style_.key.size());
        }
        --depth_;
        if (count > 0) new_line();
        out_.append(end);
    }

    void write_dict(const Dict& dict) {
        std::vector<const std::pair<Value, Value>*> entries;
        for (const auto& entry : dict.entries()) entries.push_back(&entry);
        if (style_.sorted)
            std::ranges::stable_sort(
                entries, [&](const auto* a, const auto* b) { return compare(a->first, b->first, meter_) < 0; });
        write_all(entries.size(), "{", "}", [&](std::size_t i) {
            const auto& [key, value] = *entries[i];
            if (const String* string = key.string())
                write_string(string->text);
            else
                write_string(Text(scalar(key)));
            out_.append(style_.key);
            write(value);
        });
    }

    void new_line() {
        if (style_.indent == nullptr) return;
        out_.append("\n");
        meter_.made(depth_ * style_.indent->size());
        for (std::size_t i = 0; i < depth_; ++i) out_.append(*style_.indent);
    }

    const JsonStyle& style_;
    Meter& meter_;
    Text out_;
    std::size_t depth_ = 0;
};

}  // namespace

Text to_json(const Value& value, const JsonStyle& style, Meter& meter) {
    JsonWriter writer(style, meter);
    writer.write(value);
    return writer.take();
}

}  // namespace outrider::jinja

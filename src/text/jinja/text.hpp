// A string of a template that knows, for each of its characters, who wrote it: the template or the conversation.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace outrider::jinja {

/// Who wrote a character. Names of special tokens count only where the template wrote all of their characters.
enum class Origin { source, user };

/// UTF-8 with its origins. Slices are at character boundaries; so are the ends of spans.
class Text {
public:
    struct Span {
        std::size_t begin, end;  ///< bytes
        bool operator==(const Span&) const = default;
    };

    Text() = default;
    explicit Text(std::string bytes, Origin origin = Origin::source) : bytes_(std::move(bytes)) {
        if (origin == Origin::user && !bytes_.empty()) user_.push_back({0, bytes_.size()});
    }

    [[nodiscard]] std::string_view view() const noexcept { return bytes_; }
    [[nodiscard]] const std::string& bytes() const noexcept { return bytes_; }
    [[nodiscard]] std::size_t size() const noexcept { return bytes_.size(); }
    [[nodiscard]] bool empty() const noexcept { return bytes_.empty(); }

    /// What the conversation wrote, ascending; spans never touch.
    [[nodiscard]] std::span<const Span> user() const noexcept { return user_; }

    void append(std::string_view more, Origin origin = Origin::source) {
        if (origin == Origin::user && !more.empty()) mark(bytes_.size(), bytes_.size() + more.size());
        bytes_ += more;
    }

    void append(const Text& more) { append(more, 0, more.size()); }

    /// The bytes [begin, end) of another text.
    void append(const Text& more, std::size_t begin, std::size_t end) {
        auto span = std::ranges::upper_bound(more.user_, begin, {}, &Span::end);
        for (; span != more.user_.end() && span->begin < end; ++span) {
            const std::size_t from = std::max(span->begin, begin), to = std::min(span->end, end);
            mark(bytes_.size() + from - begin, bytes_.size() + to - begin);
        }
        bytes_.append(more.bytes_, begin, end - begin);
    }

    [[nodiscard]] Text slice(std::size_t begin, std::size_t end) const {
        Text result;
        result.append(*this, begin, end);
        return result;
    }

    /// Calls f(bytes, origin) for each run of one origin, in order.
    template <typename F>
    void for_runs(F&& f) const {
        std::size_t at = 0;
        for (const Span& span : user_) {
            if (at < span.begin) f(view().substr(at, span.begin - at), Origin::source);
            f(view().substr(span.begin, span.end - span.begin), Origin::user);
            at = span.end;
        }
        if (at < bytes_.size()) f(view().substr(at), Origin::source);
    }

private:
    void mark(std::size_t begin, std::size_t end) {
        if (!user_.empty() && user_.back().end == begin)
            user_.back().end = end;
        else
            user_.push_back({begin, end});
    }

    std::string bytes_;
    std::vector<Span> user_;
};

}  // namespace outrider::jinja

// Stop strings over a stream of text pieces: finds them across piece borders and holds back no more text than could
// still become one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace outrider {

/// The text ends before the stop string that is complete first; of several that end at the same byte, before the
/// longest. So the result is a function of the text alone, however it was cut into pieces.
class StopFilter {
public:
    explicit StopFilter(std::vector<std::string> stops = {}) : stops_(std::move(stops)) {}

    /// Takes the next piece; returns the text that is certain now. After `stopped()` nothing more comes.
    [[nodiscard]] std::string push(std::string_view piece) {
        if (stopped_) return {};
        if (stops_.empty()) return std::string(piece);
        const std::size_t seen = held_.size();
        held_ += piece;
        if (const std::size_t begin = first_stop(seen); begin != std::string::npos) {
            stopped_ = true;
            held_.resize(begin);
            return std::exchange(held_, {});
        }
        const std::size_t certain = held_.size() - longest_hope();
        std::string out = held_.substr(0, certain);
        held_.erase(0, certain);
        return out;
    }

    /// The text ends for another reason: what was held back is certain now.
    [[nodiscard]] std::string flush() { return std::exchange(held_, {}); }

    [[nodiscard]] bool stopped() const noexcept { return stopped_; }
    /// Whether it looks for anything.
    [[nodiscard]] bool any() const noexcept { return !stops_.empty(); }

private:
    /// Where the stop string begins that is complete first, looking at ends beyond `seen` bytes; npos: none.
    [[nodiscard]] std::size_t first_stop(std::size_t seen) const {
        const std::string_view text = held_;
        for (std::size_t end = seen + 1; end <= text.size(); ++end) {
            std::size_t longest = 0;
            for (const std::string& stop : stops_)
                if (text.substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
            if (longest > 0) return end - longest;
        }
        return std::string::npos;
    }

    /// Length of the longest end of the held text that is a proper beginning of a stop string.
    [[nodiscard]] std::size_t longest_hope() const {
        const std::string_view text = held_;
        std::size_t longest = 0;
        for (const std::string_view stop : stops_)
            for (std::size_t n = std::min(stop.size() - 1, text.size()); n > longest; --n)
                if (text.ends_with(stop.substr(0, n))) longest = n;
        return longest;
    }

    std::vector<std::string> stops_;
    std::string held_;
    bool stopped_ = false;
};

}  // namespace outrider

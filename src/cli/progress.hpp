// How far long work is, on standard error: one line that renews itself on a terminal, a line now and then elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace outrider::cli {

class ProgressLine {
public:
    /// `total`: steps expected.
    ProgressLine(std::string title, std::int64_t total);
    ProgressLine(const ProgressLine&) = delete;
    ProgressLine& operator=(const ProgressLine&) = delete;
    ~ProgressLine();

    /// `done` of the steps are done; `note` says more.
    void update(std::int64_t done, std::string_view note = {});

private:
    using Clock = std::chrono::steady_clock;

    std::string title_;
    std::int64_t total_;
    bool terminal_;
    bool written_ = false;
    Clock::time_point start_, next_;
};

}  // namespace outrider::cli

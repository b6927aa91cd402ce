#include "progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <utility>

#include "output.hpp"

namespace outrider::cli {

ProgressLine::ProgressLine(std::string title, std::int64_t total)
    : title_(std::move(title)),
      total_(total),
      terminal_(isatty(STDERR_FILENO) == 1),
      start_(Clock::now()),
      next_(start_ + std::chrono::seconds(terminal_ ? 0 : 10)) {}

ProgressLine::~ProgressLine() {
    if (terminal_ && written_) tell("\r\x1b[K");
}

void ProgressLine::update(std::int64_t done, std::string_view note) {
    const Clock::time_point now = Clock::now();
    if (now < next_) return;
    next_ = now + (terminal_ ? std::chrono::milliseconds(200) : std::chrono::milliseconds(10000));
    const double seconds = std::chrono::duration<double>(now - start_).count();
    tell(fmt::format("{}{}: {}/{}, {:.0f} s{}{}{}", terminal_ ? "\r" : "", title_, done, total_, seconds,
                     note.empty() ? "" : ", ", note, terminal_ ? "\x1b[K" : "\n"));
    written_ = true;
}

}  // namespace outrider::cli

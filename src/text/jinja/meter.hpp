// What running a template may cost. Templates come from files that people download, so none of them may hang or fill
// the memory of a host.
#pragma once

#include <cstddef>
#include <outrider/core/error.hpp>

namespace outrider::jinja {

struct Limits {
    std::size_t steps = 20'000'000;            ///< evaluated parts, compared values and the like
    std::size_t bytes = std::size_t{1} << 28;  ///< of all strings and lists made on the way
    std::size_t depth = 1'000;                 ///< of nested parts and macro calls
};

/// Counts against the limits. Every function throws Error when one is reached.
class Meter {
public:
    explicit Meter(const Limits& limits) : limits_(limits) {}

    void step(std::size_t count = 1) {
        require((steps_ += count) <= limits_.steps, "more than {} steps; does it loop for long?", limits_.steps);
    }

    void made(std::size_t bytes) {
        require(bytes <= limits_.bytes && (bytes_ += bytes) <= limits_.bytes,
                "more than {} bytes of text made on the way", limits_.bytes);
    }

    /// A walk over so many bytes.
    void read(std::size_t bytes) { step(bytes / kBytesAStep); }

    /// A search for `wanted` bytes among `bytes`, each of which may be compared with each.
    void search(std::size_t bytes, std::size_t wanted) {
        const std::size_t walk = 1 + bytes / kBytesAStep, times = 1 + wanted / 16;
        require(walk <= limits_.steps / times, "a search for {} bytes among {}", wanted, bytes);
        step(walk * times);
    }

    /// `count` things of `bytes` each.
    void made(std::size_t count, std::size_t bytes) {
        require(bytes == 0 || count <= limits_.bytes / bytes, "more than {} bytes of text made on the way",
                limits_.bytes);
        made(count * bytes);
    }

    /// One level deeper while it lives.
    class Level {
    public:
        explicit Level(Meter& meter) : meter_(meter) {
            if (++meter_.depth_ > meter_.limits_.depth) {
                --meter_.depth_;
                fail("nested deeper than {} levels", meter_.limits_.depth);
            }
        }
        ~Level() { --meter_.depth_; }
        Level(const Level&) = delete;
        Level& operator=(const Level&) = delete;

    private:
        Meter& meter_;
    };

private:
    static constexpr std::size_t kBytesAStep = 64;

    Limits limits_;
    std::size_t steps_ = 0, bytes_ = 0, depth_ = 0;
};

}  // namespace outrider::jinja

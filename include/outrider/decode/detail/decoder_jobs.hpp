// What other threads want done to a decoder by the thread that it belongs to.
#pragma once

#include <functional>
#include <future>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

namespace outrider::detail {

/// In the order they came. Whoever calls it holds the lock of its owner.
template <typename Decoder>
class DecoderJobs {
public:
    using Job = std::function<void(Decoder&)>;  ///< throws nothing: that goes to its future

    template <typename F>
    auto add(F f) -> std::future<std::invoke_result_t<F&, Decoder&>> {
        const auto job =
            std::make_shared<std::packaged_task<std::invoke_result_t<F&, Decoder&>(Decoder&)>>(std::move(f));
        jobs_.push_back([job](Decoder& decoder) { (*job)(decoder); });
        return job->get_future();
    }

    [[nodiscard]] bool empty() const noexcept { return jobs_.empty(); }
    [[nodiscard]] std::vector<Job> take() noexcept { return std::exchange(jobs_, {}); }

private:
    std::vector<Job> jobs_;
};

}  // namespace outrider::detail

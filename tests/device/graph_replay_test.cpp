// When operations are recorded and when the record is played, with graphs that only count.
#include <catch2/catch_test_macros.hpp>
#include <memory>
#include <stdexcept>

#include "target/cuda_module.hpp"
#include "target/graph_replay.hpp"

using namespace outrider;

namespace {

struct Counted {
    int made = 0, recorded = 0, played = 0;
};

struct CountedGraph final : cuda::Graph {
    explicit CountedGraph(Counted& of) : counts(of) {}
    void record(const std::function<void()>& body) override { body(), ++counts.recorded; }
    void play() override { ++counts.played; }
    Counted& counts;
};

struct CountedPool final : cuda::GraphPool {
    [[nodiscard]] std::unique_ptr<cuda::Graph> make() override {
        ++counts.made;
        return std::make_unique<CountedGraph>(counts);
    }
    Counted counts;
};

}  // namespace

TEST_CASE("Operations run once, are recorded at their second use, and played from then on") {
    CountedPool pool;
    GraphReplay replay;
    int ran = 0;
    const auto body = [&] { ++ran; };
    replay.run(pool, body);
    CHECK((ran == 1 && pool.counts.made == 0 && pool.counts.played == 0));
    replay.run(pool, body);
    CHECK((ran == 2 && pool.counts.recorded == 1 && pool.counts.played == 1));
    for (int i = 0; i < 3; ++i) replay.run(pool, body);
    CHECK((ran == 2 && pool.counts.made == 1 && pool.counts.recorded == 1 && pool.counts.played == 4));
}

TEST_CASE("What throws while it is recorded leaves no record") {
    CountedPool pool;
    GraphReplay replay;
    bool fails = false;
    const auto body = [&] {
        if (fails) throw std::runtime_error("no memory");
    };
    replay.run(pool, body);
    fails = true;
    CHECK_THROWS_AS(replay.run(pool, body), std::runtime_error);
    CHECK(pool.counts.played == 0);
    fails = false;
    replay.run(pool, body);
    CHECK((pool.counts.made == 2 && pool.counts.recorded == 1 && pool.counts.played == 1));
}

TEST_CASE("Without CUDA there are no graphs and no module, and nothing has to be opened") {
    CHECK_NOTHROW(open_device(at::kCPU));
    CHECK(make_graph_pool(at::kCPU) == nullptr);
    CHECK(make_graph_pool(at::Device(at::kPrivateUse1, 0)) == nullptr);
}

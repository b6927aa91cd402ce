// What passes cost: measured in bounds, remembered in a file, and never a reason to fail.
#include <catch2/catch_test_macros.hpp>

#include <array>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "kernels/isa.hpp"
#include "../formats/temporary_folder.hpp"
#include <outrider/target/llama_verifier.hpp>
#include <outrider/target/pass_times.hpp>

using namespace outrider;

namespace {

LlamaModel tiny(Weights weights, int threads = 1) {
    return LlamaModel::load(OUTRIDER_SOURCE_DIR "/tests/golden/model/tiny-gguf/tiny.gguf",
                            {.weights = weights, .threads = threads});
}

struct Folder {
    test::TemporaryFolder own;
    std::filesystem::path path = own.path() / "pass-times";
    void write(const char* name, std::string_view text) const {
        std::filesystem::create_directories(path);
        std::ofstream(path / name, std::ios::binary) << text;
    }
    [[nodiscard]] std::string read(const char* name) const {
        std::ifstream in(path / name, std::ios::binary);
        return {std::istreambuf_iterator<char>(in), {}};
    }
};

bool same(const std::vector<PassTime>& a, const std::vector<PassTime>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](const PassTime& x, const PassTime& y) { return x.rows == y.rows && x.seconds == y.seconds; });
}

}  // namespace

TEST_CASE("Passes are timed smallest first, within the time and the context given") {
    const LlamaModel model = tiny(Weights::stored);
    const auto pass = model.make_pass();
    const auto start = std::chrono::steady_clock::now();
    const std::vector<PassTime> times = measure_pass_times(model, *pass, 0.5);
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(10));
    REQUIRE(times.size() >= 2);
    CHECK(times.front().rows == 1);
    CHECK(times.back().rows < model.config().context);
    for (std::size_t i = 0; i < times.size(); ++i) {
        CHECK(times[i].seconds > 0);
        if (i > 0) CHECK((times[i].rows > times[i - 1].rows && times[i].seconds >= times[i - 1].seconds));
    }
}

TEST_CASE("A verifier remembers what it measured, and measures again what it cannot read") {
    const Folder folder;
    const std::filesystem::path file = folder.path / "deep" / "times.json";
    const LlamaModel model = tiny(Weights::stored);
    LlamaVerifier first(model, {.pass_times_file = file});
    const std::vector<PassTime> measured = first.pass_times();
    REQUIRE(read_pass_times(file, pass_times_key(model)).has_value());
    CHECK(same(*read_pass_times(file, pass_times_key(model)), measured));

    const std::vector<PassTime> put{{1, 0.25}, {8, 0.5}};
    REQUIRE(write_pass_times(file, pass_times_key(model), put));
    CHECK(same(LlamaVerifier(model, {.pass_times_file = file}).pass_times(), put));

    // Nowhere to write: it works all the same, and leaves nothing behind.
    LlamaVerifier nowhere(model, {.pass_times_file = std::filesystem::path()});
    CHECK(nowhere.pass_times().size() >= 2);
    folder.write("file", "");
    LlamaVerifier blocked(model, {.pass_times_file = folder.path / "file" / "times.json"});
    CHECK(blocked.pass_times().size() >= 2);
    CHECK(folder.read("file").empty());
}

TEST_CASE("The key tells apart what a pass's time depends on") {
    const std::string stored = pass_times_key(tiny(Weights::stored));
    CHECK(stored == pass_times_key(tiny(Weights::stored)));
    CHECK(stored != pass_times_key(tiny(Weights::bf16)));
    CHECK(stored != pass_times_key(tiny(Weights::stored, 2)));
    const Isa before = active_isa();
    force_isa(Isa::scalar);
    if (before != Isa::scalar) CHECK(stored != pass_times_key(tiny(Weights::stored)));
    force_isa(before);
}

TEST_CASE("Damaged files of pass times are ignored, and replaced") {
    const Folder folder;
    const std::filesystem::path file = folder.path / "times.json";
    const std::vector<PassTime> good{{1, 0.5}, {2, 0.75}};
    CHECK_FALSE(read_pass_times(file, "a").has_value());
    for (const char* text :
         {"", "{", "[]", "3", R"({"version":2,"passes":{"a":[[1,0.5]]}})", R"({"version":1})",
          R"({"version":1,"passes":[]})", R"({"version":1,"passes":{"a":3}})", R"({"version":1,"passes":{"a":[]}})",
          R"({"version":1,"passes":{"a":[[1]]}})", R"({"version":1,"passes":{"a":[[1,"x"]]}})",
          R"({"version":1,"passes":{"a":[[0,0.5]]}})", R"({"version":1,"passes":{"a":[[1,-0.5]]}})",
          R"({"version":1,"passes":{"a":[[1,1e999]]}})", R"({"version":1,"passes":{"a":[[2,0.5],[1,0.6]]}})",
          "\xff\xfe\x00"}) {
        CAPTURE(text);
        folder.write("times.json", text);
        CHECK_FALSE(read_pass_times(file, "a").has_value());
        CHECK(write_pass_times(file, "a", good));
        REQUIRE(read_pass_times(file, "a").has_value());
        CHECK(same(*read_pass_times(file, "a"), good));
    }
    CHECK(write_pass_times(file, "b \xff", good));  // a key that is no text
    CHECK(read_pass_times(file, "a").has_value());  // beside the other
    CHECK_FALSE(write_pass_times(file, "c", {}));
    CHECK_FALSE(write_pass_times({}, "c", good));
    for (int i = 0; i < 200; ++i) CHECK(write_pass_times(file, std::to_string(i), good));
    CHECK(folder.read("times.json").size() < 20000);  // it does not grow for ever
    CHECK(std::distance(std::filesystem::directory_iterator(folder.path), std::filesystem::directory_iterator()) == 1);
}

namespace {

/// A verifier that only takes time: passes of `truth` milliseconds, noise of a tenth and stalls besides.
struct SimulatedVerifier {
    std::mt19937_64 engine{7};
    double slower = 1.0;
    [[nodiscard]] static double truth(std::int64_t rows) { return 3.0 + 0.4 * static_cast<double>(rows); }
    /// How often the table was corrected in so many passes.
    int run(PassTimesWatch& watch, int passes) {
        std::uniform_real_distribution<> uniform(0, 1);
        int corrected = 0;
        for (int i = 0; i < passes; ++i) {
            const std::int64_t rows = std::array{1, 3, 4, 8, 10, 12}[engine() % 6];
            const double stall = uniform(engine) < 0.06 ? 4.0 : 1.0;
            corrected += watch.saw(rows, slower * stall * truth(rows) * (0.9 + 0.2 * uniform(engine))) ? 1 : 0;
        }
        return corrected;
    }
};

std::vector<PassTime> table(double factor_from_8) {
    std::vector<PassTime> times;
    for (const std::int64_t rows : {1, 2, 4, 6, 8, 12, 16, 24})
        times.push_back({rows, SimulatedVerifier::truth(rows) * (rows >= 8 ? factor_from_8 : 1.0)});
    return times;
}

}  // namespace

TEST_CASE("A table of pass times that passes contradict is corrected, and one that they bear out is left alone") {
    SimulatedVerifier verifier;
    PassTimesWatch right(table(1.0));
    CHECK(verifier.run(right, 20000) == 0);
    CHECK(same(right.table(), table(1.0)));

    PassTimesWatch wrong(table(3.0));  // the machine was busy while the larger sizes were measured
    CHECK(verifier.run(wrong, 2000) >= 1);
    for (const PassTime& t : wrong.table()) {
        CAPTURE(t.rows, t.seconds);
        CHECK(t.seconds > 0.8 * SimulatedVerifier::truth(t.rows));
        CHECK(t.seconds < 1.3 * SimulatedVerifier::truth(t.rows));
    }
    CHECK(verifier.run(wrong, 5000) <= 1);

    verifier.slower = 3.0;  // for a moment
    CHECK(verifier.run(right, 256) == 0);
    verifier.slower = 1.0;
    CHECK(verifier.run(right, 5000) == 0);
    verifier.slower = 2.0;  // for good
    CHECK(verifier.run(right, 5000) == 1);
    CHECK(right.table()[0].seconds > 1.8 * SimulatedVerifier::truth(1));

    PassTimesWatch none({});
    CHECK_FALSE(none.saw(1, 1.0));
    CHECK_FALSE(right.saw(1, std::nan("")));
    CHECK_FALSE(right.saw(100, 1.0));
}

TEST_CASE("A verifier that finds its table wrong while it decodes corrects the file") {
    const Folder folder;
    const std::filesystem::path file = folder.path / "times.json";
    const LlamaModel model = tiny(Weights::stored);
    const std::vector<PassTime> put{{1, 30.0}, {8, 60.0}};
    REQUIRE(write_pass_times(file, pass_times_key(model), put));
    LlamaVerifier verifier(model, {.pass_times_file = file});
    const auto decode = [&] {
        for (SequenceId id = 1; id <= 600; ++id) {
            const std::vector<Prefill> prompts{{.sequence = id, .tokens = {}, .pending = 1}};
            (void)verifier.prefill(prompts);
            const std::vector<SequenceTree> trees{{id, TokenTree::root_only(1)}};
            (void)verifier.verify(trees);
            verifier.release(id);
        }
    };
    decode();
    CHECK(same(*read_pass_times(file, pass_times_key(model)), put));  // nobody asked what passes cost
    CHECK(same(verifier.pass_times(), put));
    decode();
    const auto corrected = read_pass_times(file, pass_times_key(model));
    REQUIRE(corrected.has_value());
    CHECK(corrected->front().seconds < 10.0);
    CHECK(same(LlamaVerifier(model, {.pass_times_file = file}).pass_times(), *corrected));
    CHECK(same(verifier.pass_times(), *corrected));
}

// What passes cost: measured in bounds, remembered in a file, and never a reason to fail.
#include <catch2/catch_test_macros.hpp>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "kernels/isa.hpp"
#include "../temporary_folder.hpp"
#include <outrider/target/llama_verifier.hpp>
#include <outrider/target/detail/pass_times.hpp>

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
    const std::vector<PassTime> times = measure_pass_times(model, *pass, 0.5).times;
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(10));
    REQUIRE(times.size() >= 2);
    CHECK(times.front().rows == 1);
    CHECK(times.back().rows < model.config().context);
    for (std::size_t i = 0; i < times.size(); ++i) {
        CHECK(times[i].seconds > 0);
        if (i > 0) CHECK((times[i].rows > times[i - 1].rows && times[i].seconds >= times[i - 1].seconds));
    }
}

TEST_CASE("A verifier remembers what passes cost where a file is named, and nowhere else") {
    const Folder folder;
    const std::filesystem::path file = folder.path / "deep" / "times.json";
    const LlamaModel model = tiny(Weights::stored);
    const std::string key = pass_times_key(model);
    LlamaVerifier first(model, {.pass_times_file = file});
    const std::vector<PassTime> measured = first.pass_times();
    REQUIRE(measured.size() >= 2);
    CHECK(same(first.pass_times(), measured));  // asked again: the same
    // A busy machine's table is not kept, so the file may not be there; what is there is what was measured.
    if (const auto kept = read_pass_times(file, key)) CHECK(same(*kept, measured));

    // A table that says nothing false is taken as it is, at whatever speed of the machine as a whole.
    std::vector<PassTime> slower = measured;
    for (PassTime& t : slower) t.seconds *= 3;
    REQUIRE(write_pass_times(file, key, slower));
    CHECK(LlamaVerifier(model, {.pass_times_file = file}).pass_times().size() >= 2);

    // Nowhere to write: it works all the same, and leaves nothing behind.
    LlamaVerifier nowhere(model);
    CHECK(nowhere.pass_times().size() >= 2);
    folder.write("file", "");
    LlamaVerifier blocked(model, {.pass_times_file = folder.path / "file" / "times.json"});
    CHECK(blocked.pass_times().size() >= 2);
    CHECK(folder.read("file").empty());
}

TEST_CASE("Verifying writes no file") {
    const Folder folder;
    const std::filesystem::path file = folder.path / "times.json";
    const LlamaModel model = tiny(Weights::stored);
    const std::vector<PassTime> put{{1, 30.0}, {8, 60.0}};
    REQUIRE(write_pass_times(file, pass_times_key(model), put));
    const std::string before = folder.read("times.json");
    LlamaVerifier verifier(model, {.pass_times_file = file});
    for (SequenceId id = 1; id <= 600; ++id) {
        const std::vector<Prefill> prompts{{.sequence = id, .tokens = {}, .pending = 1}};
        (void)verifier.prefill(prompts);
        const std::vector<SequenceTree> trees{{id, TokenTree::root_only(1)}};
        (void)verifier.verify(trees);
        verifier.release(id);
    }
    CHECK(folder.read("times.json") == before);
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

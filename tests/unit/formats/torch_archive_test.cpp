// Archives of torch.save: files by PyTorch itself against the same tensors as safetensors, and files that lie.
// The files are made by tests/oracle/make_torch_archive_golden.py.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/formats/detail/named_tensors.hpp>
#include "formats/torch_archive.hpp"

#include "gguf_builder.hpp"
#include "../temporary_folder.hpp"
#include "torch_archive_builder.hpp"

using namespace outrider;
using namespace outrider::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

const std::filesystem::path kGolden = std::filesystem::path(OUTRIDER_SOURCE_DIR) / "tests/golden/torch";

void check_equal(const NamedTensors& read, const SafeTensors& expected) {
    CHECK(read.tensors().size() == expected.tensors().size());
    for (const SafeTensor& want : expected.tensors()) {
        CAPTURE(want.name);
        REQUIRE(read.has(want.name));
        const SafeTensor& got = read.tensor(want.name);
        CHECK(got.name == want.name);
        CHECK(got.dtype == want.dtype);
        CHECK(got.shape == want.shape);
        REQUIRE(got.data.size() == want.data.size());
        CHECK((got.data.empty() || std::memcmp(got.data.data(), want.data.data(), got.data.size()) == 0));
    }
}

TorchArchive parse(const std::string& file) {
    return TorchArchive::parse(SharedBytes::copy(as_bytes(file)), "made.pt");
}

void check_fails(const std::string& file, const std::string& part) {
    CAPTURE(part);
    CHECK_THROWS_MATCHES(parse(file), Error, MessageMatches(ContainsSubstring(part) && ContainsSubstring("made.pt")));
}

std::string floats(const std::vector<float>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

/// A file of one tensor "a" of f32 over a storage of six numbers, 0 to 5.
std::string one_tensor(std::int64_t elements, std::int64_t offset, const std::vector<std::int64_t>& shape,
                       const std::vector<std::int64_t>& stride, const ZipOptions& options = {}) {
    PickleBuilder pickle;
    pickle.raw("}").text("a").tensor("FloatStorage", "0", elements, offset, shape, stride).raw("s.");
    return build_archive(pickle.build(), {floats({0, 1, 2, 3, 4, 5})}, options);
}

std::string of_pickle(const PickleBuilder& pickle) {
    return build_archive(pickle.build(), {floats({0, 1, 2, 3, 4, 5})});
}

}  // namespace

TEST_CASE("torch archive: PyTorch's own files hold the tensors that PyTorch says") {
    for (const char* name :
         {"kinds", "views", "big_endian", "medusa_legacy", "medusa_v2", "hydra_prefix_mlp", "parameters"}) {
        CAPTURE(name);
        const auto path = kGolden / (std::string(name) + ".pt");
        const SafeTensors expected = SafeTensors::open(kGolden / (std::string(name) + ".safetensors"));
        check_equal(TorchArchive::open(path), expected);
        check_equal(NamedTensors::open(path), expected);
    }
}

TEST_CASE("torch archive: names and order are those of the checkpoints") {
    const TorchArchive legacy = TorchArchive::open(kGolden / "medusa_legacy.pt");
    REQUIRE(legacy.names().size() == 15);
    CHECK(legacy.names()[0] == "0.0.linear.weight");
    CHECK(legacy.names()[2] == "0.1.weight");
    CHECK(legacy.names()[14] == "4.1.weight");
    CHECK(legacy.tensor("0.1.weight").dtype == SafeDtype::f16);
    CHECK(TorchArchive::open(kGolden / "medusa_v2.pt").tensor("3.0.linear.bias").dtype == SafeDtype::bf16);
    const TorchArchive hydra = TorchArchive::open(kGolden / "hydra_prefix_mlp.pt");
    CHECK(hydra.has("prefix_embeding_layer.layers.0.self_attn.rotary_emb.inv_freq"));
    CHECK(hydra.tensor("hydra_mlp.1.1.res_connection.weight").shape == std::vector<std::int64_t>{8, 24});
}

TEST_CASE("torch archive: a shared storage is not copied, a strided tensor is") {
    const SharedBytes bytes = SharedBytes::map(kGolden / "views.pt");
    const TorchArchive file = TorchArchive::parse(bytes, "views.pt");
    const auto inside = [&](const char* name) {
        const auto data = file.tensor(name).data, all = bytes.span();
        return data.data() >= all.data() && data.data() < all.data() + all.size();
    };
    CHECK(file.tensor("same").data.data() == file.tensor("base").data.data());
    CHECK(file.tensor("rows").data.data() == file.tensor("base").data.data() + 2 * 10 * sizeof(float));
    CHECK(inside("tail"));
    CHECK(inside("one"));
    CHECK_FALSE(inside("transposed"));
    CHECK_FALSE(inside("every third"));
    const TorchArchive hydra = TorchArchive::open(kGolden / "hydra_prefix_mlp.pt");
    const auto at = [&](const char* name) { return hydra.tensor(name).data.data(); };
    CHECK(at("hydra_mlp.0.3.linear.weight") == at("hydra_mlp.0.7.linear.weight"));
}

TEST_CASE("torch archive: tensors outlive the file that was opened") {
    std::optional<NamedTensors> kept;
    {
        const TemporaryFolder folder;
        kept = NamedTensors::open(folder.write("a.bin", one_tensor(6, 0, {2, 3}, {1, 2})));
        kept->drop_pages(kept->tensor("a").data);
    }
    CHECK(to_floats(kept->tensor("a")) == std::vector<float>{0, 2, 4, 1, 3, 5});
    CHECK_FALSE(kept->has("b"));
    CHECK_THROWS_AS(kept->tensor("b"), Error);
}

TEST_CASE("torch archive: shards") {
    const SafeTensors expected = SafeTensors::open(kGolden / "shards/expected.safetensors");
    check_equal(TorchArchive::open(kGolden / "shards"), expected);
    check_equal(NamedTensors::open(kGolden / "shards"), expected);
    const TemporaryFolder folder;
    folder.write("1.bin", one_tensor(6, 0, {6}, {1}));
    const auto index = [&](const std::string& text) {
        folder.write("pytorch_model.bin.index.json", text);
        return TorchArchive::open(folder.path());
    };
    CHECK(index(R"({"weight_map": {"a": "1.bin"}})").has("a"));
    CHECK_THROWS_MATCHES(index(R"({"weight_map": {"b": "1.bin"}})"), Error,
                         MessageMatches(ContainsSubstring("should be in")));
    CHECK_THROWS_AS(index(R"({"weight_map": {"a": "../1.bin"}})"), Error);
    folder.write("2.bin", one_tensor(6, 0, {6}, {1}));
    CHECK_THROWS_MATCHES(index(R"({"weight_map": {"a": "1.bin", "b": "2.bin"}})"), Error,
                         MessageMatches(ContainsSubstring("two files")));
}

TEST_CASE("named tensors: folders, safetensors first") {
    const TemporaryFolder folder;
    CHECK_THROWS_MATCHES(NamedTensors::open(folder.path()), Error,
                         MessageMatches(ContainsSubstring("pytorch_model.bin")));
    CHECK_THROWS_AS(TorchArchive::open(folder.path()), Error);
    folder.write("pytorch_model.bin", one_tensor(6, 0, {6}, {1}));
    CHECK(NamedTensors::open(folder.path()).names() == std::vector<std::string>{"a"});
    const std::vector<float> one = {1};
    const std::vector<SafeTensorView> tensors = {{"b", SafeDtype::f32, {1}, std::as_bytes(std::span(one))}};
    write_safetensors(folder.path() / "model.safetensors", tensors);
    CHECK(NamedTensors::open(folder.path()).names() == std::vector<std::string>{"b"});
    CHECK(NamedTensors::open(folder.path() / "model.safetensors").has("b"));
    CHECK(NamedTensors::open(folder.write("no ending", one_tensor(6, 0, {6}, {1}))).has("a"));
    CHECK(TorchArchive::open(folder.path()).names() == std::vector<std::string>{"a"});
}

TEST_CASE("torch archive: forms of the zip format") {
    const std::vector<float> all = {0, 1, 2, 3, 4, 5};
    for (const ZipOptions& options : {ZipOptions{}, ZipOptions{.wide = true}, ZipOptions{.flags = 8},
                                      ZipOptions{.wide = true, .comment = std::string(70, 'x')}}) {
        const TorchArchive file = parse(one_tensor(6, 0, {6}, {1}, options));
        CHECK(to_floats(file.tensor("a")) == all);
    }
    check_fails(one_tensor(6, 0, {6}, {1}, {.method = 8}), "compressed");
    check_fails(one_tensor(6, 0, {6}, {1}, {.flags = 1}), "encrypted");
    check_fails("", "something else");
    check_fails("PK\3\4", "no end record");
    const std::string good = one_tensor(6, 0, {6}, {1});
    for (std::size_t size = 0; size < good.size(); ++size) CHECK_THROWS_AS(parse(good.substr(0, size)), Error);
    check_fails(build_zip({{"a/data.pkl", ""}, {"a/data.pkl", ""}}), "occurs twice");
    check_fails(build_zip({{"a/data.pkl", ""}, {"b/data.pkl", ""}}), "several data.pkl");
    check_fails(build_zip({{"data.pkl", ""}, {"a/b/data.pkl", ""}}), "no NAME/data.pkl");
    check_fails(build_zip({{"a/data.pkl", ""}, {"a/constants.pkl", ""}}), "TorchScript");
    check_fails(build_zip({{"a/data.pkl", "\x80\x02}."}, {"a/byteorder", "middle"}}), "byteorder");
    CHECK(parse(build_zip({{"a/data.pkl", "\x80\x02}."}})).tensors().empty());
}

TEST_CASE("torch archive: PyTorch's own files that are refused, with the reason") {
    const auto refused = [](const char* name, const std::string& because) {
        CAPTURE(name);
        CHECK_THROWS_MATCHES(TorchArchive::open(kGolden / name), Error, MessageMatches(ContainsSubstring(because)));
    };
    refused("refused_list.pt", "EMPTY_LIST");
    refused("refused_value.pt", "\"epoch\" is an integer");
    refused("refused_legacy.pt", "bare pickle");
    refused("refused_module.pt", "torch.nn.modules.linear.Linear is not allowed");
    refused("refused_complex.pt", "torch.ComplexFloatStorage is not allowed");
    refused("refused_protocol.pt", "protocol 2");
    CHECK_THROWS_AS(TorchArchive::open(kGolden / "absent.pt"), Error);
    CHECK_THROWS_AS(NamedTensors::open(kGolden / "absent"), Error);
    CHECK_THROWS_MATCHES(NamedTensors::open(kGolden / "refused_legacy.pt"), Error,
                         MessageMatches(ContainsSubstring("bare pickle")));
}

TEST_CASE("torch archive: tensors stay inside their storages") {
    constexpr std::int64_t kHuge = std::int64_t{1} << 62;
    const std::string beyond = "reaches beyond its storage";
    CHECK(to_floats(parse(one_tensor(6, 5, {1}, {1})).tensor("a")) == std::vector<float>{5});
    CHECK(to_floats(parse(one_tensor(6, 3, {}, {})).tensor("a")) == std::vector<float>{3});
    CHECK(to_floats(parse(one_tensor(6, 1, {2, 2}, {3, 1})).tensor("a")) == std::vector<float>{1, 2, 4, 5});
    CHECK(to_floats(parse(one_tensor(6, 1, {1, 2}, {kHuge, 1})).tensor("a")) == std::vector<float>{1, 2});
    CHECK(parse(one_tensor(6, kHuge, {3, 0}, {kHuge, kHuge})).tensor("a").data.empty());
    check_fails(one_tensor(6, 6, {1}, {1}), beyond);
    check_fails(one_tensor(6, 5, {2}, {1}), beyond);
    check_fails(one_tensor(6, 0, {2, 2}, {3, 3}), beyond);
    check_fails(one_tensor(6, kHuge, {1}, {1}), beyond);
    check_fails(one_tensor(6, 0, {2}, {kHuge}), beyond);
    check_fails(one_tensor(6, 0, {3}, {kHuge}), beyond);
    check_fails(one_tensor(6, 0, {kHuge, kHuge}, {0, 0}), beyond);
    check_fails(one_tensor(6, 0, {kHuge}, {0}), "is strided");
    check_fails(one_tensor(6, 0, {1 << 20, 3}, {0, 1}), "is strided");
    check_fails(one_tensor(5, 0, {5}, {1}), "24 bytes, expected 5");
    check_fails(one_tensor(kHuge, 0, {kHuge}, {1}), "24 bytes, expected");
    check_fails(one_tensor(6, 0, {6}, {1, 1}), "another number of sizes");
    check_fails(one_tensor(6, 0, {-1}, {1}), "no integer from 0");
    check_fails(one_tensor(6, 0, {6}, {-1}), "no integer from 0");
    check_fails(one_tensor(6, -1, {6}, {1}), "a tensor is not");
    check_fails(one_tensor(-6, 0, {6}, {1}), "no storage");
    check_fails(one_tensor(6, 0, std::vector<std::int64_t>(17, 1), std::vector<std::int64_t>(17, 1)), "at most 16");
}

TEST_CASE("torch archive: copies stay in proportion to the file") {
    PickleBuilder pickle;
    pickle.raw("}(");
    for (int i = 0; i < 200; ++i)
        pickle.text(std::to_string(i)).tensor("FloatStorage", "0", 40000, 0, {200, 200}, {1, 200});
    check_fails(build_archive(pickle.raw("u.").build(), {std::string(160000, '\0')}), "is strided");
}

TEST_CASE("torch archive: the pickle is read, not run") {
    const auto tensor = [](PickleBuilder& pickle) -> PickleBuilder& {
        return pickle.tensor("FloatStorage", "0", 6, 0, {6}, {1});
    };
    check_fails(of_pickle(PickleBuilder().global("os", "system")), "os.system is not allowed");
    check_fails(of_pickle(PickleBuilder().global("builtins", "eval")), "builtins.eval is not allowed");
    check_fails(of_pickle(PickleBuilder().global("torch", "OrderedDict")), "torch.OrderedDict is not allowed");
    check_fails(of_pickle(PickleBuilder().raw("c").raw(std::string(500, 'a')).raw("\nb\n")), "too long");
    check_fails(of_pickle(PickleBuilder().raw("\x93")), "STACK_GLOBAL");
    check_fails(of_pickle(PickleBuilder().raw("(ios\nsystem\n")), "INST");
    check_fails(of_pickle(PickleBuilder().raw("]")), "EMPTY_LIST");
    check_fails(of_pickle(PickleBuilder().raw("\xFF")), "0xFF");
    check_fails(of_pickle(PickleBuilder().raw(std::string(100'000, '('))), "cut short");
    const std::string dicts(100'000, '}'), nestings(100'000, '\x85');
    check_fails(of_pickle(PickleBuilder().raw(dicts).raw(nestings).raw(".")), "open values");
    check_fails(of_pickle(PickleBuilder().raw("}").raw(nestings).raw(".")), "got a tuple");
    check_fails(of_pickle(PickleBuilder().raw(std::string((8 << 20) + 1, 'N'))), "expected at most");
    check_fails(of_pickle(PickleBuilder().raw("}.}")), "open values");
    check_fails(of_pickle(PickleBuilder().raw("}(.")), "open values");
    check_fails(of_pickle(PickleBuilder().raw(".")), "open values");
    check_fails(of_pickle(PickleBuilder().raw("}")), "cut short");
    check_fails(of_pickle(PickleBuilder().raw("}(K\1u.")), "key or value");
    check_fails(of_pickle(PickleBuilder().raw("(K\1K\1u.")), "key or value");
    check_fails(of_pickle(PickleBuilder().raw("K\1(K\1K\1u.")), "other than a dict");
    check_fails(of_pickle(PickleBuilder().raw("}u.")), "mark");
    check_fails(of_pickle(PickleBuilder().raw("}(s.")), "key or value");
    check_fails(of_pickle(PickleBuilder().raw("}h\7.")), "has not stored");
    check_fails(of_pickle(PickleBuilder().raw("q\1.")), "missing");
    check_fails(of_pickle(PickleBuilder().raw("K\1\x86.")), "missing");
    check_fails(of_pickle(PickleBuilder().raw("\x8A\x09"
                                              "123456789")),
                "64 bits");
    check_fails(of_pickle(PickleBuilder().raw("}").text("\xFF").raw("Ns.")), "UTF-8");
    check_fails(of_pickle(PickleBuilder().raw("}NNs.")), "texts as names");
    check_fails(of_pickle(PickleBuilder().raw("}}Q.")), "persistent id");
    check_fails(of_pickle(PickleBuilder().raw("})R.")), "called");
    check_fails(of_pickle(PickleBuilder().global("torch", "FloatStorage").raw(")R.")), "called");
    check_fails(of_pickle(PickleBuilder().global("collections", "OrderedDict").raw("}R.")), "arguments");
    check_fails(of_pickle(PickleBuilder().global("collections", "OrderedDict").raw("N\x85R.")), "has arguments");
    const std::string utils = "torch._utils";
    check_fails(of_pickle(PickleBuilder().global(utils, "_rebuild_tensor_v2").raw(")R.")), "a tensor is not");
    check_fails(of_pickle(PickleBuilder().global(utils, "_rebuild_parameter").raw(")R.")), "a parameter is not");
    check_fails(of_pickle(PickleBuilder().raw("}}").text("x").raw("Nsb.")), "_metadata");
    check_fails(of_pickle(PickleBuilder().raw("N}b.")), "attributes of");
    PickleBuilder twice;
    tensor(twice.raw("}(").text("a"));
    check_fails(of_pickle(tensor(twice.text("a")).raw("u.")), "occurs twice");
    PickleBuilder missing;
    missing.raw("}").text("a").tensor("FloatStorage", "7", 6, 0, {6}, {1});
    check_fails(of_pickle(missing.raw("s.")), "storage 7 of tensor a is missing");
}

// The bodies of device kernels, run by one thread, beside ATen's operations.
#include <ATen/ATen.h>
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>

#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "cuda/ctc_beam.hpp"
#include "cuda/norm.hpp"
#include "cuda/rope_store.hpp"
#include "cuda/rows.hpp"
#include "cuda/tree_attention.hpp"

using namespace outrider::cuda;

namespace {

template <typename T>
constexpr at::ScalarType type_of = std::is_same_v<T, float> ? at::kFloat : at::kBFloat16;

template <typename T>
T* data(const at::Tensor& x) {
    REQUIRE(x.is_contiguous());
    REQUIRE(x.element_size() == sizeof(T));
    return static_cast<T*>(x.mutable_data_ptr());
}

template <typename Body>
void launch(const Body& body, std::int64_t blocks) {
    std::vector<float> shared(static_cast<std::size_t>(body.shared_floats()) + 1);
    const SerialBlock block(shared.data());
    for (std::int64_t b = 0; b < blocks; ++b) body(block, b);
}

/// Near in T's own precision.
template <typename T>
bool near(const at::Tensor& a, const at::Tensor& b) {
    const double tolerance = std::is_same_v<T, float> ? 2e-5 : 1.6e-2;
    return at::allclose(a.to(at::kFloat), b.to(at::kFloat), tolerance, tolerance);
}

at::Tensor random(at::IntArrayRef sizes, at::ScalarType type = at::kFloat) { return at::randn(sizes).to(type); }

}  // namespace

TEST_CASE("bfloat16 of the bodies is ATen's") {
    at::manual_seed(1);
    const at::Tensor x = at::cat({at::randn({2000}) * 1e3, at::tensor({0.0F, -0.0F, INFINITY, -INFINITY, 1e-40F})});
    const at::Tensor rounded = x.to(at::kBFloat16);
    for (std::int64_t i = 0; i < x.size(0); ++i) {
        const Bf16 mine(x[i].item<float>());
        CHECK(mine.bits == data<std::uint16_t>(rounded)[i]);
        CHECK(static_cast<float>(mine) == rounded[i].item<float>());
    }
    CHECK(std::isnan(static_cast<float>(Bf16(std::numeric_limits<float>::quiet_NaN()))));
}

TEMPLATE_TEST_CASE("Norm and residual", "", float, Bf16) {
    at::manual_seed(2);
    constexpr auto type = type_of<TestType>;
    const at::Tensor stream = random({5, 96}, type), branch = random({5, 96}, type), weight = random({96}, type),
                     own_norm = random({96}, type);
    const auto norm = [](const at::Tensor& x, const at::Tensor& by) {
        return std::get<0>(at::_fused_rms_norm(x.to(at::kFloat), {96}, by.to(at::kFloat), 1e-5));
    };
    for (const bool normed : {false, true}) {
        const at::Tensor add = normed ? norm(branch, own_norm) : branch.to(at::kFloat);
        const at::Tensor sum = (stream.to(at::kFloat) + 0.5 * add).to(type);
        const at::Tensor own = stream.clone(), out = at::empty_like(stream);
        NormAdd<TestType> body{.stream = data<TestType>(own),
                               .branch = data<TestType>(branch),
                               .branch_norm = normed ? data<TestType>(own_norm) : nullptr,
                               .weight = data<TestType>(weight),
                               .out = data<TestType>(out),
                               .width = 96,
                               .scale = 0.5F,
                               .eps = 1e-5F};
        launch(body, 5);
        CHECK(near<TestType>(own, sum));
        CHECK(near<TestType>(out, norm(own, weight)));
        const at::Tensor before = own.clone();
        out.zero_();
        body.branch = nullptr;
        launch(body, 5);
        CHECK(at::equal(own, before));
        CHECK(near<TestType>(out, norm(own, weight)));
        body.branch = data<TestType>(branch), body.out = nullptr, body.weight = nullptr;
        launch(body, 5);
        CHECK(near<TestType>(own, before.to(at::kFloat) + 0.5 * add));
    }
}

TEMPLATE_TEST_CASE("Queries, keys and values on their way: norms, turns, scales, slots", "", float, Bf16) {
    at::manual_seed(3);
    constexpr auto type = type_of<TestType>;
    const std::int64_t N = 4, heads = 4, kv = 2, D = 16;
    enum class Norm : unsigned char { none, each, whole };
    for (const std::int64_t rotated : {std::int64_t{0}, D, D / 2})
        for (const Norm norm : {Norm::none, Norm::each, Norm::whole}) {
            const std::int64_t half = rotated / 2;
            const at::Tensor angle = at::rand({30, half}) * 6, still = at::zeros({30, D - rotated});
            const at::Tensor cos = angle.cos(), sin = angle.sin();
            const at::Tensor turns =
                at::stack({at::cat({cos, cos, still + 1}, 1), at::cat({-sin, sin, still}, 1)}, 1).to(type);
            const at::Tensor qkv = random({N, heads + 2 * kv, D}, type),
                             store = at::zeros({9, 2 * kv, D}, qkv.options());
            const at::Tensor weight = random({heads + kv, D}, type), scale = (at::rand({30}) + 0.5).to(type);
            const at::Tensor position = at::tensor(std::vector<std::int64_t>{0, 29, 7, 7}),
                             slot = at::tensor(std::vector<std::int64_t>{8, 1, 4, 2});
            const at::Tensor own = turns.index_select(0, position).to(at::kFloat).unsqueeze(2);  // [N, 2, 1, D]
            at::Tensor x = qkv.to(at::kFloat).narrow(1, 0, heads + kv);
            const auto normed = [&](std::int64_t first, std::int64_t count) {
                const at::Tensor part = x.narrow(1, first, count), by = weight.to(at::kFloat).narrow(0, first, count);
                if (norm == Norm::each) return std::get<0>(at::_fused_rms_norm(part, {D}, {}, 1e-5)) * by;
                return std::get<0>(at::_fused_rms_norm(part.flatten(1), {count * D}, by.flatten(), 1e-5)).view_as(part);
            };
            if (norm != Norm::none) x = at::cat({normed(0, heads), normed(heads, kv)}, 1).to(type).to(at::kFloat);
            const at::Tensor swapped =
                at::cat({x.slice(2, half, rotated), x.slice(2, 0, half), x.slice(2, rotated)}, 2);
            at::Tensor turned = rotated == 0 ? x.clone() : x * own.select(1, 0) + swapped * own.select(1, 1);
            const bool scaled = norm != Norm::each;
            if (scaled) turned.narrow(1, 0, heads).mul_(scale.index_select(0, position).to(at::kFloat).view({N, 1, 1}));
            const at::Tensor mine = qkv.clone();
            launch(RopeStore<TestType>{.qkv = data<TestType>(mine),
                                       .store = data<TestType>(store),
                                       .turns = rotated == 0 ? nullptr : data<TestType>(turns),
                                       .position = data<std::int64_t>(position),
                                       .slot = data<std::int64_t>(slot),
                                       .norm = norm == Norm::none ? nullptr : data<TestType>(weight),
                                       .query_scale = scaled ? data<TestType>(scale) : nullptr,
                                       .heads = heads,
                                       .kv_heads = kv,
                                       .head_dim = D,
                                       .rotated = rotated,
                                       .whole = norm == Norm::whole,
                                       .eps = 1e-5F},
                   N);
            CHECK(near<TestType>(mine.narrow(1, 0, heads + kv), turned));
            CHECK(at::equal(store.index_select(0, slot), mine.narrow(1, heads, 2 * kv)));
            CHECK(at::equal(mine.narrow(1, heads + kv, kv), qkv.narrow(1, heads + kv, kv)));
            CHECK(store.index_select(0, at::tensor(std::vector<std::int64_t>{0, 3, 5, 6, 7})).eq(0).all().item<bool>());
        }
}

TEMPLATE_TEST_CASE("Tree attention over slots, in splits", "", float, Bf16) {
    at::manual_seed(4);
    constexpr auto type = type_of<TestType>;
    const std::int64_t heads = 4, kv = 2, D = 16, columns = 700;
    // Two sequences: a tree of three rows behind 600 tokens, with a window; one row behind none.
    const std::vector<std::int64_t> sequence{0, 0, 0, 1}, place{0, 1, 2, 3}, lane{2, 1}, committed{600, 0}, count{3, 1},
        first{0, 500, 123, 0, 0, 0}, bits{1, 3, 5, 1, 0, 0};
    const at::Tensor qkv = random({4, heads + 2 * kv, D}, type), store = random({1000, 2 * kv, D}, type);
    const at::Tensor table = at::randperm(1000).slice(0, 0, 999).repeat(3).slice(0, 0, 3 * columns).contiguous();
    const std::int64_t splits = 3;
    const SeenRows rows{.place = place.data(),
                        .lane = lane.data(),
                        .committed = committed.data(),
                        .count = count.data(),
                        .first = first.data(),
                        .bits = bits.data(),
                        .table = data<std::int64_t>(table),
                        .tree_rows = 3,
                        .words = 1,
                        .columns = columns};
    const at::Tensor partial = at::empty({4, heads, splits, D + 2}), out = at::empty({4, heads, D}, qkv.options());
    for (const float cap : {0.0F, 2.0F}) {
        launch(TreeAttend<TestType>{rows, data<TestType>(qkv), data<TestType>(store), data<float>(partial), heads, kv,
                                    D, splits, 0.25F, cap},
               4 * kv * splits);
        launch(TreeJoin<TestType>{data<float>(partial), data<TestType>(out), D, splits}, 4 * heads);
        for (std::size_t r = 0; r < 4; ++r) {
            const auto s = static_cast<std::size_t>(sequence[r]);
            std::vector<std::int64_t> slots;
            for (std::int64_t p = 0; p < committed[s] + count[s]; ++p) {
                const bool seen = p < committed[s] ? p >= first[r] : (bits[r] >> (p - committed[s]) & 1) != 0;
                if (seen) slots.push_back(table[lane[s] * columns + p].item<std::int64_t>());
            }
            const at::Tensor cells = store.index_select(0, at::tensor(slots)).to(at::kFloat);  // [L, 2 kv, D]
            for (std::int64_t h = 0; h < heads; ++h) {
                const at::Tensor q = qkv[static_cast<std::int64_t>(r)][h].to(at::kFloat);
                at::Tensor scores = at::mv(cells.select(1, h / 2), q) * 0.25;
                if (cap > 0) scores = at::tanh(scores / cap) * cap;
                const at::Tensor wanted = at::mv(cells.select(1, kv + h / 2).t(), at::softmax(scores, 0));
                CHECK(near<TestType>(out[static_cast<std::int64_t>(r)][h], wanted));
            }
        }
    }
}

TEMPLATE_TEST_CASE("Gates, and the largest logit of a row", "", float, Bf16) {
    at::manual_seed(5);
    constexpr auto type = type_of<TestType>;
    const at::Tensor inner = random({3, 80}, type), out = at::empty({3, 40}, inner.options());
    const at::Tensor gate = inner.narrow(1, 0, 40).to(at::kFloat), up = inner.narrow(1, 40, 40).to(at::kFloat);
    launch(Gate<TestType>{data<TestType>(inner), data<TestType>(out), 40, false}, 3);
    CHECK(near<TestType>(out, at::silu(gate) * up));
    launch(Gate<TestType>{data<TestType>(inner), data<TestType>(out), 40, true}, 3);
    CHECK(near<TestType>(out, at::gelu(gate, "tanh") * up));

    const at::Tensor logits = random({4, 333}, type), token = at::empty({4}, at::kLong);
    logits[1][7] = 50, logits[1][200] = 50;  // of equals the lowest
    logits[2][11] = std::numeric_limits<float>::quiet_NaN();
    logits[3].fill_(-INFINITY);
    launch(ArgmaxRow<TestType>{data<TestType>(logits), data<std::int64_t>(token), 333}, 4);
    CHECK(token[0].item<std::int64_t>() == logits[0].argmax().item<std::int64_t>());
    CHECK(token[1].item<std::int64_t>() == 7);
    CHECK(token[2].item<std::int64_t>() == -1);
    CHECK(token[3].item<std::int64_t>() == 0);
}

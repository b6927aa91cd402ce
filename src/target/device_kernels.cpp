#include "device_kernels.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/TensorOptions.h>

#include <cstdlib>
#include <optional>
#include <string_view>
#include <vector>

#include <outrider/core/error.hpp>

#include "cuda/rope_store.hpp"
#include "cuda/rows.hpp"
#include "cuda/tree_attention.hpp"
#include "target/device_launch.hpp"
#include "target/device_operators.hpp"

namespace outrider {
namespace {

using at::Tensor;
using cuda::Bf16;

template <typename T>
T* data(const Tensor& x) {
    OUTRIDER_ASSERT(x.is_contiguous());
    return static_cast<T*>(x.mutable_data_ptr());
}

const std::int64_t* longs(const Tensor& x) { return x.const_data_ptr<std::int64_t>(); }

/// f(T) for the element type.
template <typename F>
void by_type(const Tensor& x, F&& f) {
    if (x.scalar_type() == at::kFloat)
        f(float{});
    else
        f(Bf16{});
}

template <typename T>
T* data(const std::optional<Tensor>& x) {
    return x ? data<T>(*x) : nullptr;
}

template <typename On>
void place_on(Tensor& qkv, Tensor& store, const std::optional<Tensor>& turns, const Tensor& position,
              const Tensor& slot, const std::optional<Tensor>& norm, const std::optional<Tensor>& query_scale,
              std::int64_t rotated, bool whole, double eps) {
    const std::int64_t kv_heads = store.size(1) / 2;
    by_type(qkv, [&]<typename T>(T) {
        On{}(cuda::RopeStore<T>{.qkv = data<T>(qkv),
                                .store = data<T>(store),
                                .turns = data<T>(turns),
                                .position = longs(position),
                                .slot = longs(slot),
                                .norm = data<T>(norm),
                                .query_scale = data<T>(query_scale),
                                .heads = qkv.size(1) - 2 * kv_heads,
                                .kv_heads = kv_heads,
                                .head_dim = qkv.size(2),
                                .rotated = rotated,
                                .whole = whole,
                                .eps = static_cast<float>(eps)},
             qkv.size(0));
    });
}

template <typename On>
Tensor norm_add_on(Tensor& stream, const std::optional<Tensor>& branch, const std::optional<Tensor>& branch_norm,
                   const std::optional<Tensor>& weight, double scale, double eps) {
    const std::optional<Tensor> out = weight ? std::optional(at::empty_like(stream)) : std::nullopt;
    by_type(stream, [&]<typename T>(T) {
        On{}(cuda::NormAdd<T>{.stream = data<T>(stream),
                              .branch = data<T>(branch),
                              .branch_norm = data<T>(branch_norm),
                              .weight = data<T>(weight),
                              .out = data<T>(out),
                              .width = stream.size(1),
                              .scale = static_cast<float>(scale),
                              .eps = static_cast<float>(eps)},
             stream.size(0));
    });
    return out.value_or(at::empty({0}, stream.options()));
}

template <typename On>
Tensor largest_on(const Tensor& logits) {
    const Tensor token = at::empty({logits.size(0)}, logits.options().dtype(at::kLong));
    On{}(
        cuda::ArgmaxRow<float>{
            .logits = data<float>(logits), .token = data<std::int64_t>(token), .columns = logits.size(1)},
        logits.size(0));
    return token;
}

template <typename On>
Tensor pick_on(const Tensor& logits, const Tensor& key, const Tensor& temperature) {
    const Tensor token = at::empty({logits.size(0)}, key.options());
    On{}(cuda::PickRow{.logits = data<float>(logits),
                       .key = longs(key),
                       .temperature = data<double>(temperature),
                       .token = data<std::int64_t>(token),
                       .columns = logits.size(1)},
         logits.size(0));
    return token;
}

template <typename On>
Tensor attend_on(const Tensor& qkv, const Tensor& store, at::TensorList rows, std::int64_t tree_rows,
                 std::int64_t words, std::int64_t splits, double scale, double cap) {
    const std::int64_t kv_heads = store.size(1) / 2, heads = qkv.size(1) - 2 * kv_heads, N = qkv.size(0);
    const Tensor partial = at::empty({N, heads, splits, qkv.size(2) + 2}, qkv.options().dtype(at::kFloat));
    const cuda::SeenRows seen{.place = longs(rows[0]),
                              .lane = longs(rows[1]),
                              .committed = longs(rows[2]),
                              .count = longs(rows[3]),
                              .first = longs(rows[4]),
                              .bits = longs(rows[5]),
                              .table = longs(rows[6]),
                              .tree_rows = tree_rows,
                              .words = words,
                              .columns = rows[6].size(1)};
    by_type(qkv, [&]<typename T>(T) {
        On{}(cuda::TreeAttend<T>{.rows = seen,
                                 .qkv = data<T>(qkv),
                                 .store = data<T>(store),
                                 .partial = data<float>(partial),
                                 .heads = heads,
                                 .kv_heads = kv_heads,
                                 .head_dim = qkv.size(2),
                                 .splits = splits,
                                 .scale = static_cast<float>(scale),
                                 .cap = static_cast<float>(cap)},
             N * kv_heads * splits);
    });
    return partial;
}

template <typename On>
Tensor join_on(const Tensor& partial, const Tensor& like) {
    const std::int64_t N = partial.size(0), heads = partial.size(1), D = partial.size(3) - 2;
    const Tensor out = at::empty({N, heads * D}, like.options());
    by_type(out, [&]<typename T>(T) {
        On{}(
            cuda::TreeJoin<T>{
                .partial = data<float>(partial), .out = data<T>(out), .head_dim = D, .splits = partial.size(2)},
            N * heads);
    });
    return out;
}

template <typename On>
Tensor gate_on(const Tensor& gate_up, bool gelu) {
    const std::int64_t F = gate_up.size(1) / 2;
    const Tensor out = at::empty({gate_up.size(0), F}, gate_up.options());
    by_type(out, [&]<typename T>(T) {
        On{}(cuda::Gate<T>{.gate_up = data<T>(gate_up), .out = data<T>(out), .width = F, .gelu = gelu}, out.size(0));
    });
    return out;
}

template <typename On>
void implement(torch::Library& library) {
    library.impl("place_rows", &place_on<On>);
    library.impl("norm_add", &norm_add_on<On>);
    library.impl("largest_columns", &largest_on<On>);
    library.impl("picked_columns", &pick_on<On>);
    library.impl("tree_attend", &attend_on<On>);
    library.impl("tree_join", &join_on<On>);
    library.impl("gate", &gate_on<On>);
}

void define(torch::Library& library) {
    library.def(
        "place_rows(Tensor(a!) qkv, Tensor(b!) store, Tensor? turns, Tensor position, Tensor slot, Tensor? norm, "
        "Tensor? query_scale, int rotated, bool whole, float eps) -> ()");
    library.def(
        "norm_add(Tensor(a!) stream, Tensor? branch, Tensor? branch_norm, Tensor? weight, float scale, float eps) -> "
        "Tensor");
    library.def("largest_columns(Tensor logits) -> Tensor");
    library.def("picked_columns(Tensor logits, Tensor key, Tensor temperature) -> Tensor");
    library.def(
        "tree_attend(Tensor qkv, Tensor store, Tensor[] rows, int tree_rows, int words, int splits, float scale, "
        "float cap) -> Tensor");
    library.def("tree_join(Tensor partial, Tensor like) -> Tensor");
    library.def("gate(Tensor gate_up, bool gelu) -> Tensor");
}

void ready() {
    static const bool once =
        (detail::register_operators(&define, &implement<detail::Serially>, &implement<detail::OnStream>), true);
    (void)once;
}

template <typename Signature>
c10::TypedOperatorHandle<Signature> operator_named(const char* name) {
    ready();
    return detail::registered_operator<Signature>(name);
}

std::optional<Tensor> given(const Tensor& x) { return x.defined() ? std::optional(x) : std::nullopt; }

}  // namespace

bool device_kernels_wanted(at::Device device) {
    const char* said = std::getenv("OUTRIDER_KERNELS");
    return said != nullptr && std::string_view(said) == "1" && device_kernels_run(device);
}

bool device_kernels_run(at::Device device) {
    return detail::runs_on(operator_named<Tensor(const Tensor&, bool)>("gate"), device) && detail::kernels_open(device);
}

void place_rows(const Tensor& qkv, const Tensor& store, const PlacedRows& rows) {
    using Given = const std::optional<Tensor>&;
    static const auto run = operator_named<void(Tensor&, Tensor&, Given, const Tensor&, const Tensor&, Given, Given,
                                                std::int64_t, bool, double)>("place_rows");
    Tensor to_qkv = qkv, to_store = store;
    run.call(to_qkv, to_store, given(rows.turns), rows.position, rows.slot, given(rows.norm), given(rows.query_scale),
             rows.rotated, rows.whole, rows.eps);
}

Tensor norm_add(Tensor& stream, const Tensor& branch, const Tensor& branch_norm, const Tensor& weight, double scale,
                double eps) {
    using Given = const std::optional<Tensor>&;
    static const auto run = operator_named<Tensor(Tensor&, Given, Given, Given, double, double)>("norm_add");
    const Tensor out = run.call(stream, given(branch), given(branch_norm), given(weight), scale, eps);
    return weight.defined() ? out : stream;
}

Tensor largest_columns(const Tensor& logits) {
    static const auto run = operator_named<Tensor(const Tensor&)>("largest_columns");
    return run.call(logits);
}

Tensor picked_columns(const Tensor& logits, const Tensor& key, const Tensor& temperature) {
    static const auto run = operator_named<Tensor(const Tensor&, const Tensor&, const Tensor&)>("picked_columns");
    return run.call(logits, key, temperature);
}

Tensor tree_attention(const Tensor& qkv, const Tensor& store, const AttendedRows& rows, double scale, double cap) {
    static const auto attend = operator_named<Tensor(const Tensor&, const Tensor&, at::TensorList, std::int64_t,
                                                     std::int64_t, std::int64_t, double, double)>("tree_attend");
    static const auto join = operator_named<Tensor(const Tensor&, const Tensor&)>("tree_join");
    const std::vector<Tensor> parts{rows.place, rows.lane, rows.committed, rows.count,
                                    rows.first, rows.bits, rows.table};
    const std::int64_t splits = (rows.positions + cuda::kSplit - 1) / cuda::kSplit;
    return join.call(attend.call(qkv, store, parts, rows.tree_rows, rows.words, splits, scale, cap), qkv);
}

Tensor gated(const Tensor& gate_up, bool gelu) {
    static const auto run = operator_named<Tensor(const Tensor&, bool)>("gate");
    return run.call(gate_up, gelu);
}

}  // namespace outrider

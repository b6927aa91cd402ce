// The CTC beam's levels as operators of the tensor library: three launches where ATen alone needs fourteen.
#include <outrider/draft/ctc/detail/beam_kernels.hpp>

#include <ATen/ops/empty.h>
#include <c10/core/TensorOptions.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "cuda/ctc_beam.hpp"
#include "target/device_launch.hpp"
#include "target/device_operators.hpp"

namespace outrider::detail {
namespace {

using at::Tensor;
using std::optional;

const float* floats(const optional<Tensor>& x) { return x ? x->const_data_ptr<float>() : nullptr; }

struct Expanded {
    Tensor psi, column, entry;
};

/// A body over these tensors, and where it writes. All contiguous; frames [S T, V + 2], scores [S P, V],
/// entry [S P, T], last [S P].
cuda::BeamExpand expand_body(const Tensor& frames, const optional<Tensor>& scores, const optional<Tensor>& entry,
                             const optional<Tensor>& last, std::int64_t T, std::int64_t P, std::int64_t keep,
                             const Tensor& joint, const Expanded& to) {
    return {.frames = frames.const_data_ptr<float>(),
            .scores = floats(scores),
            .entry = floats(entry),
            .last = last ? last->const_data_ptr<std::int64_t>() : nullptr,
            .joint = joint.mutable_data_ptr<float>(),
            .psi = to.psi.mutable_data_ptr<float>(),
            .column = to.column.mutable_data_ptr<std::int64_t>(),
            .entries = to.entry.mutable_data_ptr<float>(),
            .T = T,
            .P = P,
            .columns = frames.size(1) - 2,
            .keep = keep};
}

/// `run(body, blocks)` on the tensors' device.
template <typename Run>
std::tuple<Tensor, Tensor, Tensor> expand(const Tensor& frames, const optional<Tensor>& scores,
                                          const optional<Tensor>& entry, const optional<Tensor>& last, std::int64_t T,
                                          std::int64_t P, std::int64_t keep, Run&& run) {
    const std::int64_t rows = frames.size(0) / T * P;
    const Tensor joint = at::empty({rows, frames.size(1) - 2}, frames.options());
    const Expanded to{at::empty({rows, keep}, frames.options()),
                      at::empty({rows, keep}, frames.options().dtype(at::kLong)),
                      at::empty({rows, keep, T}, frames.options())};
    run(expand_body(frames, scores, entry, last, T, P, keep, joint, to), rows);
    return {to.psi, to.column, to.entry};
}

template <typename Run>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> merge(const Tensor& psi, const Tensor& column, const Tensor& entry,
                                                         std::int64_t P, std::int64_t columns, std::int64_t width,
                                                         Run&& run) {
    const std::int64_t S = psi.size(0) / P, T = entry.size(2);
    const auto longs = psi.options().dtype(at::kLong);
    const Tensor best = at::empty({S, width}, psi.options()), place = at::empty({S, width}, longs),
                 parent = at::empty({S, width}, longs), token = at::empty({S, width}, longs),
                 entries = at::empty({S, width, T}, psi.options());
    run(cuda::BeamMerge{.psi = psi.const_data_ptr<float>(),
                        .column = column.const_data_ptr<std::int64_t>(),
                        .entries = entry.const_data_ptr<float>(),
                        .best = best.mutable_data_ptr<float>(),
                        .place = place.mutable_data_ptr<std::int64_t>(),
                        .parent = parent.mutable_data_ptr<std::int64_t>(),
                        .token = token.mutable_data_ptr<std::int64_t>(),
                        .entry = entries.mutable_data_ptr<float>(),
                        .T = T,
                        .P = P,
                        .columns = columns,
                        .keep = psi.size(1),
                        .width = width},
        S);
    return {best, place, parent, token, entries};
}

template <typename On>
Tensor states_on(const Tensor& table, const Tensor& base, const Tensor& second, const optional<Tensor>& parent,
                 const Tensor& last, std::int64_t offset) {
    const std::int64_t P = last.size(1), rows = last.size(0) * P;
    const Tensor state = at::empty({rows, table.size(1)}, table.options());
    On{}(cuda::BeamStates{.table = table.const_data_ptr<float>(),
                          .base = base.const_data_ptr<std::int64_t>(),
                          .second = second.const_data_ptr<std::int64_t>(),
                          .parent = parent ? parent->const_data_ptr<std::int64_t>() : nullptr,
                          .last = last.const_data_ptr<std::int64_t>(),
                          .state = state.mutable_data_ptr<float>(),
                          .width = table.size(1),
                          .P = P,
                          .Q = second.size(1),
                          .offset = offset},
         rows);
    return state;
}

/// The operators' signatures.
template <typename On>
std::tuple<Tensor, Tensor, Tensor> expand_on(const Tensor& frames, const optional<Tensor>& scores,
                                             const optional<Tensor>& entry, const optional<Tensor>& last,
                                             std::int64_t T, std::int64_t P, std::int64_t keep) {
    return expand(frames, scores, entry, last, T, P, keep, On{});
}
template <typename On>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> merge_on(const Tensor& psi, const Tensor& column,
                                                            const Tensor& entry, std::int64_t P, std::int64_t columns,
                                                            std::int64_t width) {
    return merge(psi, column, entry, P, columns, width, On{});
}

void define(torch::Library& library) {
    library.def(
        "beam_expand(Tensor frames, Tensor? scores, Tensor? entry, Tensor? last, int T, int P, int keep) -> "
        "(Tensor, Tensor, Tensor)");
    library.def(
        "beam_merge(Tensor psi, Tensor column, Tensor entry, int P, int columns, int width) -> "
        "(Tensor, Tensor, Tensor, Tensor, Tensor)");
    library.def(
        "beam_states(Tensor table, Tensor base, Tensor second, Tensor? parent, Tensor last, int offset) -> Tensor");
}

template <typename On>
void implement(torch::Library& library) {
    library.impl("beam_expand", &expand_on<On>);
    library.impl("beam_merge", &merge_on<On>);
    library.impl("beam_states", &states_on<On>);
}

void ready() {
    static const bool once = (register_operators(&define, &implement<Serially>, &implement<OnStream>), true);
    (void)once;
}

using Expand = std::tuple<Tensor, Tensor, Tensor>(const Tensor&, const optional<Tensor>&, const optional<Tensor>&,
                                                  const optional<Tensor>&, std::int64_t, std::int64_t, std::int64_t);
using Merge = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&,
                                                                 std::int64_t, std::int64_t, std::int64_t);

using States = Tensor(const Tensor&, const Tensor&, const Tensor&, const optional<Tensor>&, const Tensor&,
                      std::int64_t);

const c10::TypedOperatorHandle<Expand>& expand_operator() {
    ready();
    static const auto found = registered_operator<Expand>("beam_expand");
    return found;
}

const c10::TypedOperatorHandle<Merge>& merge_operator() {
    ready();
    static const auto found = registered_operator<Merge>("beam_merge");
    return found;
}

}  // namespace

at::Tensor beam_states(const Tensor& table, const Tensor& base, const Tensor& second, const Tensor& parent,
                       const Tensor& last, std::int64_t offset) {
    ready();
    static const auto run = registered_operator<States>("beam_states");
    return run.call(table, base, second, parent.defined() ? optional(parent) : std::nullopt, last, offset);
}

bool has_beam_kernels(at::Device device) { return runs_on(expand_operator(), device) && kernels_open(device); }

BeamStep beam_step(const Tensor& frames, const Tensor& scores, const BeamStep& of, std::int64_t T, std::int64_t width) {
    const auto given = [](const Tensor& x) { return x.defined() ? optional(x.contiguous()) : std::nullopt; };
    const std::int64_t columns = frames.size(1) - 2, P = of.psi.defined() ? of.psi.size(1) : 1;
    const auto [psi, column, entry] = expand_operator().call(frames.contiguous(), given(scores), given(of.entry),
                                                             given(of.column), T, P, std::min(width, columns));
    const auto [best, place, parent, token, entries] = merge_operator().call(psi, column, entry, P, columns, width);
    return {best, place, parent, token, entries};
}

}  // namespace outrider::detail

#include "device_rounds.hpp"

#include <cmath>

namespace outrider {
namespace {

/// Trees of more rows go through the tensor library's attention: a kernel's block reads keys for one row alone.
constexpr std::int64_t kKernelRows = 64;

}  // namespace

DeviceRounds::DeviceRounds(std::shared_ptr<const DeviceBackend> model, bool kernels)
    : model_(std::move(model)), kernels_(kernels) {
    const ModelConfig& c = config();
    const std::size_t token_bytes =
        static_cast<std::size_t>(c.layers * 2 * c.kv_heads * c.head_dim) * model_->options.dtype().itemsize();
    const std::int64_t tokens = model_->limits.tokens > 0 ? model_->limits.tokens : device_cache_tokens(c, token_bytes);
    pool_ = std::make_shared<KvPool>(
        KvCache::Shape{.layers = c.layers, .kv_heads = c.kv_heads, .head_dim = c.head_dim},
        KvPool::Limits{.tokens = tokens, .sequences = model_->limits.sequences, .context = c.context}, model_->options);
    const auto longs = model_->options.dtype(at::kLong);
    positions_ = at::arange(pool_->columns(), longs);
    shifts_ = at::arange(64, longs);
    cache_heads_ = at::arange(2 * c.kv_heads, longs).view({2, 1, c.kv_heads, 1});
    seen_ = at::zeros({}, model_->options);
    unseen_ = at::full({}, -INFINITY, model_->options);
}

bool DeviceRounds::kernels_attend(const DeviceShape& shape) const { return kernels_ && shape.tree_rows <= kKernelRows; }

DeviceBlock DeviceRounds::make_block(const DeviceShape& shape) {
    const bool by_head =
        config().score_cap > 0;  // how attention leaves its rows: heads outermost, or key heads innermost
    const DeviceInputs inputs(shape, by_head ? 1 : config().kv_heads, by_head ? config().heads : group(),
                              config().vocabulary, model_->windows);
    const at::Tensor block = at::empty({inputs.size()}, model_->options.dtype(at::kLong));
    if (!head_places_.contains(shape.tree_rows)) {
        const std::int64_t K = config().kv_heads, G = group(), R = shape.tree_rows;
        const at::Tensor head = at::arange(K * G, block.options()), kv = head.floor_divide(G);
        const at::Tensor place = by_head ? head * R : (head - kv * G) * (R * K) + kv;
        head_places_[R] = {head.view({1, K, G, 1}), place.view({1, K * G})};
    }
    return {inputs, block};
}

void DeviceRounds::send(DeviceBlock& block, std::span<const RowSegment> segments) const {
    const bool pinned = !model_->options.device().is_cpu();
    const at::Tensor staged =
        at::empty({block.inputs.size()}, at::TensorOptions().dtype(at::kLong).pinned_memory(pinned));
    block.inputs.fill(segments, pool_->columns(), staged.data_ptr<std::int64_t>());
    block.block.copy_(staged, true);
}

// A position p of lane s is a token of the text where p < committed, else row p - committed of this forward.
RoundTensors DeviceRounds::prepare(const DeviceShape& shape, const DeviceBlock& block) const {
    using In = DeviceInputs;
    const auto part = [&](In::Part which) { return block.part(which); };
    pool_->table().view({-1}).index_copy_(0, part(In::update_at), part(In::update_to));
    RoundTensors round;
    round.slot = part(In::slot), round.position = part(In::position);
    if (kernels_attend(shape))
        for (std::size_t w = 0; w < model_->windows.size(); ++w)
            round.seen.push_back({.place = part(In::padded_place),
                                  .lane = part(In::lane),
                                  .committed = part(In::committed),
                                  .count = part(In::count),
                                  .first = of_window(block, In::first, w),
                                  .bits = of_window(block, In::bits, w),
                                  .table = pool_->table(),
                                  .tree_rows = shape.tree_rows,
                                  .words = shape.words(),
                                  .positions = shape.context});
    else
        prepare_operations(shape, block, round);
    if (kernels_) return round;
    for (const at::Tensor& rotation : model_->rotations)
        round.turns.push_back(rotation.index_select(0, round.position));
    if (model_->query_scales.defined()) round.query_scale = model_->query_scales.index_select(0, round.position);
    return round;
}

/// What attention by operations needs.
void DeviceRounds::prepare_operations(const DeviceShape& shape, const DeviceBlock& block, RoundTensors& round) const {
    using In = DeviceInputs;
    const auto part = [&](In::Part which) { return block.part(which); };
    const std::int64_t S = shape.sequences, R = shape.tree_rows, L = shape.context, heads = config().heads;
    const at::Tensor behind = positions_.narrow(0, 0, L).unsqueeze(0) - part(In::committed).unsqueeze(1);  // [S, L]
    const at::Tensor live = behind.lt(part(In::count).unsqueeze(1));
    round.gathered = (pool_->table().narrow(1, 0, L).index_select(0, part(In::lane)) * live).view({S * L});
    if (config().score_cap > 0)
        round.gathered_heads = (round.gathered.view({1, S, 1, L}) * (2 * config().kv_heads) + cache_heads_).view({-1});
    for (std::size_t w = 0; w < model_->windows.size(); ++w)
        round.bias.push_back(bias_of(shape, block, w, behind, live));
    const auto& [of_query, of_output] = head_places_.at(R);
    const at::Tensor row = part(In::padded_row).view({S, 1, 1, R}) * (heads + 2 * config().kv_heads);
    round.query_rows = (row + of_query).view({-1});
    round.output_rows = (part(In::attended_row).unsqueeze(1) + of_output).view({-1});
}

/// A part that there is of each window.
at::Tensor DeviceRounds::of_window(const DeviceBlock& block, DeviceInputs::Part part, std::size_t window) const {
    const at::Tensor all = block.part(part);
    const std::int64_t each = all.size(0) / std::ssize(model_->windows);
    return all.narrow(0, static_cast<std::int64_t>(window) * each, each);
}

/// From the bits of the rows' ancestors. `behind` [S, L]: positions counted from the first row; `live`: those that are
/// there.
at::Tensor DeviceRounds::bias_of(const DeviceShape& shape, const DeviceBlock& block, std::size_t window,
                                 const at::Tensor& behind, const at::Tensor& live) const {
    using In = DeviceInputs;
    const std::int64_t S = shape.sequences, R = shape.tree_rows, L = shape.context, B = shape.words() * 64;
    const at::Tensor words = of_window(block, In::bits, window).view({S, R, shape.words(), 1});
    const at::Tensor bits = words.bitwise_right_shift(shifts_).bitwise_and(1).view({S, R, B});
    const at::Tensor row = behind.clamp(0, B - 1).unsqueeze(1).expand({S, R, L});
    const at::Tensor of_tree = bits.gather(2, row).ne(0).logical_and_(live.unsqueeze(1));
    const at::Tensor of_text = positions_.narrow(0, 0, L).ge(of_window(block, In::first, window).view({S, R, 1}));
    const at::Tensor sees = at::where(behind.lt(0).unsqueeze(1), of_text, of_tree);
    return at::where(sees, seen_, unseen_).unsqueeze(1).expand({S, group(), R, L}).reshape({S, 1, group() * R, L});
}

}  // namespace outrider

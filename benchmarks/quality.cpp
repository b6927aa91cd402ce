// What a weight format and a vector path cost in quality: the loss of a text, and how far the predictions are from
// those of f32 weights.
//     quality MODEL TEXT.txt [TOKENS = 1024]
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/target/llama_model.hpp>
#include "kernels/isa.hpp"

using namespace outrider;

namespace {

/// Log-probabilities [tokens - 1, V] of every next token of the text.
at::Tensor log_probabilities(const LlamaModel& model, const std::vector<TokenId>& text) {
    const auto pass = model.make_pass();
    KvCache cache = pass->make_cache();
    const RowSegment segment{.cache = &cache, .tokens = text};
    return pass->forward(std::span(&segment, 1), PassFor::logits).logits.slice(0, 0, -1).log_softmax(-1);
}

void report(const std::string& name, const at::Tensor& found, const at::Tensor& reference, const at::Tensor& next) {
    const double loss = -found.gather(1, next).mean().item<double>();
    const double divergence = (reference.exp() * (reference - found)).sum(-1).mean().item<double>();
    const double same = found.argmax(-1).eq(reference.argmax(-1)).to(at::kDouble).mean().item<double>();
    fmt::print("{:>28} {:8.4f} {:10.3f} {:10.6f} {:9.2f} %\n", name, loss, std::exp(loss), divergence, 100 * same);
}

int run(int argc, char** argv) {
    require(argc >= 3, "usage: quality MODEL TEXT.txt [TOKENS]");
    std::ifstream file(argv[2], std::ios::binary);
    require(file.good(), "quality: cannot read {}", argv[2]);
    const std::string words{std::istreambuf_iterator<char>(file), {}};
    std::vector<TokenId> text;
    at::Tensor reference, next;
    const std::vector<Isa> paths = available_isas();
    fmt::print("{:>28} {:>8} {:>10} {:>10} {:>11}\n", "weights, path", "loss", "perplexity", "KL to f32", "same first");
    for (const Weights weights : {Weights::f32, Weights::bf16, Weights::int8, Weights::stored}) {
        const LlamaModel model = LlamaModel::load(argv[1], {.weights = weights});
        if (!reference.defined()) {
            text = model.raw(words).tokens;
            text.resize(
                std::min(text.size(), static_cast<std::size_t>(argc > 3 ? std::max(2, std::atoi(argv[3])) : 1024)));
            require(text.size() > 1, "quality: {} is shorter than two tokens", argv[2]);
            next = at::tensor(std::vector<std::int64_t>(text.begin() + 1, text.end())).unsqueeze(1);
        }
        for (const Isa path : paths) {
            if (path == Isa::scalar && paths.size() > 1) continue;  // minutes
            force_isa(path);
            const at::Tensor found = log_probabilities(model, text);
            if (!reference.defined()) reference = found;
            report(fmt::format("{}, {}", name_of(weights), name(path)), found, reference, next);
        }
        force_isa(paths.back());
    }
    fmt::print("{} tokens\n", text.size());
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& error) {
        fmt::print(stderr, "{}\n", error.what());
        return 1;
    }
}

// A drafter's language model without a network: logits are those of a FakeLaw. Checks that caches hold what they
// should.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include <outrider/target/causal_model.hpp>
#include <outrider/target/target_head.hpp>

#include "fake_target.hpp"

namespace outrider::test {

class FakeCausalModel final : public CausalModel {
public:
    explicit FakeCausalModel(FakeLaw law) : law_(law) {}

    at::Tensor forward(std::span<const Rows> rows, bool with_logits) override {
        std::size_t count = 0;
        for (const Rows& one : rows) count += one.tokens.size();
        at::Tensor logits = at::empty({static_cast<std::int64_t>(count), law_.vocabulary}, at::kFloat);
        float* out = logits.data_ptr<float>();
        ran = 0;
        for (const Rows& one : rows) {
            Cache& cache = caches[one.sequence];
            cache.last.assign(one.tokens.begin(), one.tokens.end());
            for (std::size_t i = 0; i < one.tokens.size(); ++i, out += law_.vocabulary) {
                std::vector<TokenId> path;
                for (auto at = static_cast<NodeIndex>(i); at >= 0;
                     at = one.parents.empty() ? at - 1 : one.parents[static_cast<std::size_t>(at)])
                    path.insert(path.begin(), one.tokens[static_cast<std::size_t>(at)]);
                path.insert(path.begin(), cache.held.begin(), cache.held.end());
                if (static_cast<std::int64_t>(path.size()) > law_.context) throw std::logic_error("beyond the context");
                fake_logits(law_, path, out);
            }
            ran += static_cast<std::int64_t>(one.tokens.size());
        }
        rows_run += ran;
        return with_logits ? logits : at::Tensor{};
    }
    void keep(SequenceId sequence, std::int64_t rows) override {
        Cache& cache = caches.at(sequence);
        if (rows > static_cast<std::int64_t>(cache.last.size())) throw std::logic_error("more rows kept than ran");
        cache.held.insert(cache.held.end(), cache.last.begin(), cache.last.begin() + rows);
    }
    void truncate(SequenceId sequence, std::int64_t length) override {
        Cache& cache = caches.at(sequence);
        if (length > static_cast<std::int64_t>(cache.held.size())) throw std::logic_error("truncated to more");
        cache.held.resize(static_cast<std::size_t>(length));
    }
    void release(SequenceId sequence) override { caches.erase(sequence); }
    [[nodiscard]] std::int64_t vocabulary() const override { return law_.vocabulary; }
    [[nodiscard]] std::int64_t context() const override { return law_.context; }
    [[nodiscard]] const std::string& tokenizer() const override { return name; }

    struct Cache {
        std::vector<TokenId> held, last;
    };
    std::map<SequenceId, Cache> caches;
    std::string name = "fake";
    std::int64_t ran = 0, rows_run = 0;  ///< rows of the last forward, and of all

private:
    FakeLaw law_;
};

inline TargetHead fake_head(const FakeLaw& law) {
    TargetHead head;
    head.vocabulary = law.vocabulary, head.tokenizer = "fake";
    return head;
}

}  // namespace outrider::test

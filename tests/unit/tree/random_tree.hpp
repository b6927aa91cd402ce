// Random trees, made from a parent array that the test keeps for itself.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include <outrider/core/detail/rng.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider::reference {

struct PlainTree {
    std::vector<NodeIndex> parents;
    std::vector<TokenId> tokens;
    std::vector<float> log_q;
};

/// `bushy`: tokens of a small alphabet below random parents; else mostly chains. Children of a node differ.
inline PlainTree random_plain_tree(std::uint64_t seed, std::size_t nodes, bool bushy) {
    const RandomKey key(seed, 0, 0, 90);
    PlainTree tree{{kNoNode}, {static_cast<TokenId>(key.bits(0) % 50)}, {0.0F}};
    std::map<std::pair<NodeIndex, TokenId>, bool> taken;
    for (std::uint64_t draw = 1; tree.parents.size() < nodes + 1; draw += 3) {
        const std::size_t size = tree.parents.size();
        const bool random_parent = bushy || key.uniform(draw) < 0.2;
        const auto parent = static_cast<NodeIndex>(random_parent ? key.bits(draw + 1) % size : size - 1);
        const auto token = static_cast<TokenId>(key.bits(draw + 2) % 7);
        if (!taken.emplace(std::pair(parent, token), true).second) continue;
        tree.parents.push_back(parent);
        tree.tokens.push_back(token);
        tree.log_q.push_back(-static_cast<float>(key.uniform(draw)));
    }
    return tree;
}

inline TokenTree build(const PlainTree& plain) {
    TokenTree::Builder builder(plain.tokens[0]);
    for (std::size_t i = 1; i < plain.parents.size(); ++i)
        builder.add(plain.parents[i], plain.tokens[i], plain.log_q[i]);
    return std::move(builder).build();
}

}  // namespace outrider::reference

// Builds a draft tree, walks it, and reads the layout that a host would hand to its own model.
#include <outrider/accept/rules/detail/accept_walk.hpp>
#include <outrider/core/detail/rng.hpp>
#include <outrider/core/detail/version.hpp>
#include <outrider/tree/token_tree.hpp>

#include <cstdio>

int main() {
    outrider::TokenTree::Builder builder(7);
    const auto a = builder.add(0, 11, -0.1F);
    builder.add(a, 12, -0.2F);
    builder.add(0, 13, -2.0F);
    const outrider::TokenTree tree = std::move(builder).build();

    const auto accepted = outrider::accept_walk(tree, [](outrider::NodeIndex node) { return node == 0 ? 11 : 99; });
    const auto where = outrider::positions(tree, 100);
    const bool good = accepted.path == std::vector<outrider::NodeIndex>{1} && accepted.pending == 99 &&
                      where == std::vector<std::int64_t>{100, 101, 102, 101} &&
                      outrider::RandomKey(1, 2, 3).uniform(0) < 1.0;
    std::printf("outrider %s core: %s\n", outrider::kVersion, good ? "good" : "wrong");
    return good ? 0 : 1;
}

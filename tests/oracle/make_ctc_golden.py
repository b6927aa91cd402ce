#!/usr/bin/env python3
"""Writes tests/golden/ctc/ctc.json: exact values for the tests of include/outrider/ctc.

Everything is computed with Fractions, twice where it can be: by walking all alignments, and by the forward variables.
All inputs are multiples of 1/256 (probabilities) or 1/16 (factors), so that float and double hold them exactly.

Run:  python3 tests/oracle/make_ctc_golden.py > tests/golden/ctc/ctc.json
"""
import itertools
import json
import random
from fractions import Fraction

BLANK = -1


def collapse(alignment):
    tokens, previous = [], BLANK
    for symbol in alignment:
        if symbol != BLANK and symbol != previous:
            tokens.append(symbol)
        previous = symbol
    return tuple(tokens)


def random_rows(rng, frames, tokens, zeros=0.0):
    """[T] of (blank, [C]) with sums of exactly 1."""
    rows = []
    for _ in range(frames):
        while True:
            cuts = sorted(rng.randint(0, 256) for _ in range(tokens))
            parts = [b - a for a, b in zip([0] + cuts, cuts + [256])]
            parts = [0 if i > 0 and rng.random() < zeros else p for i, p in enumerate(parts)]
            parts[0] += 256 - sum(parts)
            if zeros or min(parts) > 0:
                break
        rows.append((Fraction(parts[0], 256), [Fraction(p, 256) for p in parts[1:]]))
    return rows


def conditional(rows, factors, t, prefix):
    """pi_t(. | prefix)."""
    blank, pi = rows[t]
    if factors is None:
        return pi
    weighted = [p * f for p, f in zip(pi, factors[prefix])]
    mass = sum(weighted)
    return [w * (1 - blank) / mass if mass else w for w in weighted]


def enumerate_alignments(rows, factors):
    """P(the draft is exactly l), P(it starts with l)."""
    exact, psi = {}, {}

    def walk(t, previous, prefix, weight):
        if weight == 0:
            return
        if t == len(rows):
            exact[prefix] = exact.get(prefix, 0) + weight
            return
        walk(t + 1, BLANK, prefix, weight * rows[t][0])
        for c, p in enumerate(conditional(rows, factors, t, prefix)):
            walk(t + 1, c, prefix if c == previous else prefix + (c,), weight * p)

    walk(0, BLANK, (), Fraction(1))
    for sequence, weight in exact.items():
        for k in range(len(sequence) + 1):
            psi[sequence[:k]] = psi.get(sequence[:k], 0) + weight
    return exact, psi


def forward(rows, factors, prefix):
    """(Psi, P) of one prefix by the recursion over frames."""
    frames = len(rows)
    blank, label, psi = [Fraction(1)], [Fraction(0)] * (frames + 1), Fraction(1)
    for t in range(frames):
        blank.append(blank[-1] * rows[t][0])
    for k, c in enumerate(prefix):
        before, after = prefix[:k], prefix[:k + 1]
        repeats = k > 0 and prefix[k - 1] == c
        phi = blank if repeats else [b + n for b, n in zip(blank, label)]
        enter = [conditional(rows, factors, t, before)[c] * phi[t] for t in range(frames)]
        psi = sum(enter)
        new_blank, new_label = [Fraction(0)], [Fraction(0)]
        for t in range(frames):
            stay = conditional(rows, factors, t, after)[c] * new_label[-1]
            new_blank.append(rows[t][0] * (new_blank[-1] + new_label[-1]))
            new_label.append(enter[t] + stay)
        blank, label = new_blank, new_label
    return psi, blank[-1] + label[-1]


def random_factors(rng, frames, tokens, by_label):
    table = {}
    for depth in range(frames + 1):
        for prefix in itertools.product(range(tokens), repeat=depth):
            if by_label and depth > 1:
                table[prefix] = table[prefix[-1:]]
            else:
                table[prefix] = [Fraction(rng.randint(1, 64), 16) for _ in range(tokens)]
    return table


def best_tree(psi, nodes):
    """The largest sum of Psi over all prefix-closed sets of `nodes` prefixes, by trying every set."""
    best = Fraction(0)

    def grow(frontier, total, left):
        nonlocal best
        best = max(best, total)
        if left == 0:
            return
        for i, prefix in enumerate(frontier):
            children = [l for l in psi if len(l) == len(prefix) + 1 and l[:-1] == prefix]
            grow(frontier[i + 1:] + children, total + psi[prefix], left - 1)

    grow([l for l in psi if len(l) == 1], Fraction(0), nodes)
    return best


def static_tree(rows, choices):
    """Prefixes that the ranked choices collapse to. Rank 0 is the most probable of blank and tokens."""
    ranked = []
    for blank, pi in rows:
        symbols = sorted(range(-1, len(pi)), key=lambda c: -(blank if c == BLANK else pi[c]))
        ranked.append([c for c in symbols if (blank if c == BLANK else pi[c]) > 0])
    found = set()
    for choice in choices:
        if len(choice) > len(rows) or any(r >= len(ranked[t]) for t, r in enumerate(choice)):
            continue
        tokens = collapse([ranked[t][r] for t, r in enumerate(choice)])
        found |= {tokens[:k] for k in range(1, len(tokens) + 1)}
    return sorted(found)


CHOICES = [(0,), (1,), (2,), (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0),
           (0, 0, 0, 0), (0, 0, 0, 1)]


def case(rng, kind, frames, tokens, zeros, nodes):
    rows = random_rows(rng, frames, tokens, zeros)
    factors = None if kind == "plain" else random_factors(rng, frames, tokens, kind == "label")
    exact, psi = enumerate_alignments(rows, factors)
    assert sum(exact.values()) == 1
    for prefix in psi:
        assert forward(rows, factors, prefix) == (psi[prefix], exact.get(prefix, 0)), prefix
        children = sum(psi[l] for l in psi if len(l) == len(prefix) + 1 and l[:-1] == prefix)
        assert psi[prefix] == exact.get(prefix, 0) + children
    ordered = sorted((value for prefix, value in psi.items() if prefix), reverse=True)
    optimum = best_tree(psi, nodes)
    assert optimum == sum(ordered[:nodes])
    result = {
        "kind": kind,
        "blank": [float(b) for b, _ in rows],
        "pi": [[float(p) for p in pi] for _, pi in rows],
        "prefixes": [{"l": list(l), "psi": float(psi[l]), "exact": float(exact.get(l, 0))} for l in sorted(psi)],
        "nodes": nodes,
        "best_psi": [float(v) for v in ordered[:nodes]],
        "best_sum": float(optimum),
    }
    if kind == "plain":
        result["static"] = [list(l) for l in static_tree(rows, CHOICES)]
    else:
        result["factors"] = [{"l": list(l), "f": [float(x) for x in f]} for l, f in factors.items() if l in psi]
    return result


def main():
    rng = random.Random(2026)
    cases = []
    for frames, tokens, zeros, nodes in [(1, 3, 0, 2), (2, 2, 0, 3), (3, 2, 0, 4), (4, 2, 0, 5), (5, 2, 0, 4),
                                         (3, 3, 0, 4), (4, 3, 0, 3), (4, 3, .4, 3)]:
        for kind in ("plain", "label", "prefix"):
            cases.append(case(rng, kind, frames, tokens, zeros, nodes))
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    print('{"choices":%s,\n"cases":[\n%s\n]}' % (json.dumps(CHOICES, separators=(",", ":")), lines))


if __name__ == "__main__":
    main()

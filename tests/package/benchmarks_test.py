#!/usr/bin/env python3
"""The arithmetic of the benchmark scripts on reports small enough to count by hand.

    benchmarks_test.py ROOT
"""
import json
import pathlib
import re
import sys
import tempfile
import unittest

ROOT = pathlib.Path(sys.argv.pop(1)).resolve()
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "benchmarks/peers")]
sys.dont_write_bytecode = True
import auto_table  # noqa: E402
import compare_peers  # noqa: E402
import compare_sets  # noqa: E402
import performance_page  # noqa: E402


def answer(tokens, seconds, **more):
    return {"prompt_tokens": 11, "tokens": tokens, "text": str(tokens), "first_s": 0.5, "decode_tokens": tokens,
            "decode_s": seconds, **more}


def run(*answers):
    return {"load_s": 1.0, "peak_mb": 100.0, "answers": list(answers)}


class Peers(unittest.TestCase):
    def test_rates(self):
        answers = [answer(10, 1.0), answer(30, 1.0)]
        self.assertEqual(compare_peers.decode_rate(answers), 20)
        self.assertEqual(compare_peers.prefill_rate(answers), 22)
        # Outrider's prefill leaves the prompt's last token to the first round
        self.assertEqual(compare_peers.prefill_rate([answer(10, 1.0, prefill_s=0.1)]), 100)

    def test_a_ratio_without_noise_has_no_width(self):
        fast, slow = [run(answer(10, 1.0), answer(20, 2.0))] * 2, [run(answer(10, 4.0), answer(20, 8.0))] * 2
        self.assertEqual(compare_peers.ratio(fast, slow, compare_peers.decode_rate), [4, 4, 4])

    def test_an_interval_spans_what_prompts_differ_by(self):
        base = [run(*[answer(10, 1.0)] * 8)]
        mixed = [run(*[answer(10, 0.5)] * 4, *[answer(10, 2.0)] * 4)]
        value, low, high = compare_peers.ratio(mixed, base, compare_peers.decode_rate)
        self.assertAlmostEqual(value, 0.8)
        self.assertTrue(0.5 <= low < 0.7 and 1.0 < high <= 2.0, (low, high))

    def test_a_ratio_takes_only_what_both_have(self):
        base = [run(answer(10, 1.0))]
        more = [run(answer(10, 0.5), answer(10, 100.0)), run(answer(10, 100.0), answer(10, 100.0))]
        self.assertEqual(compare_peers.ratio(more, base, compare_peers.decode_rate)[0], 2)

    def test_rows(self):
        arms = {"llama.cpp/plain": {"kind": "llama_cpp"}, "llama.cpp/ngram-mod": {"kind": "llama_cpp"},
                "outrider/stored/none": {"kind": "outrider"}}
        runs = {"llama.cpp/plain": [run(answer(10, 1.0), answer(20, 2.0))],
                "llama.cpp/ngram-mod": [run(answer(10, 0.5), answer(21, 1.0))],
                "outrider/stored/none": [run(answer(10, 0.25, rounds=5), answer(20, 0.5, rounds=15))]}
        plain, lookup, ours = compare_peers.summarise(arms, runs)
        self.assertEqual(lookup["same_text"], [1, 2])
        self.assertIsNone(plain["same_text"])
        self.assertEqual(ours["beta"], 1.5)
        self.assertEqual(ours["decode_over"]["llama.cpp/plain"][0], 4)
        self.assertEqual(ours["first_token_ms"], 500)


class Sets(unittest.TestCase):
    def test_a_report_becomes_rows(self):
        row = {"drafter": "a/b/ctc+ngram", "rounds": 4, "beta": 2.5, "drafted": 20, "accepted_per_depth": [3, 1],
               "tokens_per_second": 7.0, "gamma": 1.5, "gamma_low": 1.25, "gamma_high": 1.75, "host_share": 0.01,
               "identical": False, "differences": [{}],
               "seconds": {"prefill": 9.0, "draft": 0.001, "verify": 0.004, "accept": 0, "commit": 0, "other": 0}}
        settings = {"prompts": "x/some.jsonl", "prompt_count": 3, "weights": "bf16", "tree": "best-first", "batch": 1,
                    "nodes": 16, "max_tokens": 8, "temperature": 0.0}
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "report.json"
            path.write_text(json.dumps({"settings": settings, "rows": [row]}), encoding="utf-8")
            rows = compare_sets.collect([path])
        self.assertEqual(rows[0]["acceptance_per_depth"], [0.75, 0.25])
        self.assertEqual(rows[0]["nodes_per_round"], 5)
        self.assertEqual(rows[0]["microseconds_per_round"]["verify"], 1000)
        self.assertNotIn("prefill", rows[0]["microseconds_per_round"])
        self.assertIn("| some | bf16 | best-first | 1 | 0 | 16 | ctc+ngram | 2.50 | 0.75, 0.25 | 5.0 | 7.0 | "
                      "1.50 (1.25 - 1.75) | 1.0 % | 1 of 3 differ |", compare_sets.table(rows))
        self.assertIn("| some (3) | bf16 | 0 | ctc+ngram | 2.50 | 0.75, 0.25 | 1 of 3 differ with 16 nodes |",
                      compare_sets.drafts(rows))
        self.assertEqual(compare_sets.drafts([{**rows[0], "drafter": "none"}]), "No drafter but none.\n")
        # Another size is another column, and what was not run stays empty.
        more = rows + [rows[-1] | {"nodes": 6, "beta": 1.25, "identical": True}, rows[-1] | {"nodes": 6, "drafter": "x"}]
        self.assertIn("| ctc+ngram | 1.25 | 2.50 | 0.75, 0.25 | 1 of 3 differ with 16 nodes |", compare_sets.drafts(more))
        self.assertIn("| x | 2.50 |  |  | 1 of 3 differ with 6 nodes |", compare_sets.drafts(more))


    def test_a_page_may_name_drafters(self):
        row = {"prompts": "some", "prompt_count": 3, "weights": "f32", "temperature": 0.0, "nodes": 16, "beta": 2.0,
               "acceptance_per_depth": [0.5], "identical": True, "differing": 0}
        with tempfile.TemporaryDirectory() as name:
            rows, page = pathlib.Path(name) / "rows.json", pathlib.Path(name) / "page.md"
            rows.write_text(json.dumps([row | {"drafter": "a"}, row | {"drafter": "b"}]), encoding="utf-8")
            page.write_text("<!-- drafts b -->\n<!-- /drafts -->\nx\n<!-- drafts -->\nold\n<!-- /drafts -->\n", encoding="utf-8")
            options = type("Options", (), {"rows": rows, "page": page, "check": False})()
            self.assertEqual(compare_sets.write_page(options), 0)
            some, all_of_them = page.read_text(encoding="utf-8").split("x\n")
            self.assertNotIn("| a |", some)
            self.assertIn("| b |", some)
            self.assertIn("| a |", all_of_them)
            self.assertNotIn("old", all_of_them)
            options.check = True
            self.assertEqual(compare_sets.write_page(options), 0)
            page.write_text("<!-- drafts c -->\n<!-- /drafts -->\n", encoding="utf-8")
            with self.assertRaises(SystemExit):
                compare_sets.write_page(options)


class Auto(unittest.TestCase):
    def test_auto_is_held_against_the_fastest_size_and_a_merge_against_its_better_part(self):
        def row(kind, nodes, *seconds):
            return {"kind": kind, "nodes": nodes, "prompts": [{"seconds": s, "tokens": 10} for s in seconds]}
        rows = [row("none", 0, 4, 4), row("ngram", "auto", 2, 2), row("ngram", 0, 4, 4), row("ngram", 2, 1, 1),
                row("ngram", 8, 0.5, 3), row("ctc", "auto", 1, 1), row("ctc+ngram", "auto", 2, 2)]
        with tempfile.TemporaryDirectory() as folder:
            for repeat in range(2):
                path = pathlib.Path(folder) / f"bf16-1-cold-{repeat}.json"
                path.write_text(json.dumps({"rows": rows}), encoding="utf-8")
            (key, arms), = auto_table.read(folder).items()
        self.assertEqual(key, ("bf16", 1, "cold"))
        self.assertEqual(arms["ngram", 8], [(0.5, 10), (3, 10)] * 2)
        steady = "0.50 (0.50 - 0.50)"
        self.assertEqual(auto_table.line(key, "ngram", arms),
                         f"| bf16 | 1 | cold | ngram | 2.00 (2.00 - 2.00) | 4.00 (2) | {steady} | - |")
        self.assertEqual(auto_table.line(key, "ctc", arms), "| bf16 | 1 | cold | ctc | 4.00 (4.00 - 4.00) | - | - | - |")
        self.assertTrue(auto_table.line(key, "ctc+ngram", arms).endswith(f"| - | - | {steady} |"))
        value, low, high = map(float, re.findall(r"[0-9.]+", auto_table.ratio(arms["ngram", 8], arms["ngram", 2])))
        self.assertEqual((value, low, high), (1.75, 0.5, 3))


class Page(unittest.TestCase):
    def test_figures_and_gaps(self):
        page = "a\n<!-- whole_pass -->\nold\n<!-- /whole_pass -->\n<!-- rounds -->\n<!-- /rounds -->\nb\n"
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "pass_stored.txt").write_text(
                "stored, 97 MB, 2 threads, path vnni, loaded in 0.50 s\n  n   median      min   of n = 1\n"
                "  1   4.00 ms   3.90 ms     1.00\n  6   6.00 ms   5.00 ms     1.50\n64 sequences: 1500 tokens/s\n",
                encoding="utf-8")
            (folder / "pass.machine.txt").write_text("a day, a machine\n", encoding="utf-8")
            text = performance_page.filled(page, performance_page.Figures(folder))
        self.assertIn("| over n = 1 | 1.00 | 1.50 |", text)
        self.assertIn("64 sequences: 1500 tokens/s", text)
        self.assertIn("a day, a machine", text)
        self.assertNotIn("old", text)
        self.assertIn("<!-- rounds -->\nNot measured: no rounds.json.\n<!-- /rounds -->\nb\n", text)

    def test_limits(self):
        cell = {"format": "stored", "isa": "vnni", "rows": 1, "ms": 4.0, "megabytes": 100.0, "multiplies_per_second": 1e12}
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "kernels.json").write_text(json.dumps(
                {"threads": 2, "bytes_per_second": 50e9, "rows": [cell]}), encoding="utf-8")
            (folder / "kernels.machine.txt").write_text("a day\n", encoding="utf-8")
            figures = performance_page.Figures(folder)
            self.assertIn("| of the limit | | 50 % m |", figures.matrices())
            self.assertIn("takes 2.00 ms at the measured bandwidth, 25 % of n = 1",
                          figures.reading({"title": "stored, 100 MB, 2 threads", "times": {1: 8.0}}))

    def test_quality(self):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "quality.txt").write_text(
                "               weights, path     loss perplexity  KL to f32  same first\n"
                "                  bf16, vnni   4.2778     72.079   0.000055     99.61 %\n512 tokens\n", encoding="utf-8")
            (folder / "quality.machine.txt").write_text("a day\n", encoding="utf-8")
            text = performance_page.Figures(folder).quality()
        self.assertIn("| bf16 | vnni | 4.2778 | 72.079 | 0.000055 | 99.61 % |", text)
        self.assertIn("the first 512 tokens of docs/acceptance.md. a day.", text)

    def test_speed_and_sampling(self):
        def row(drafter, temperature, verify, **more):
            return {"prompts": "set", "prompt_count": 2, "weights": "stored (q4_1)", "drafter": drafter, "beta": 2.0,
                    "nodes_per_round": 5.0, "temperature": temperature, "tokens_per_second": 500.4, "gamma": 1.5,
                    "gamma_low": 1.4, "gamma_high": 1.6, "identical": True, "differing": 0, "max_tokens": 64,
                    "microseconds_per_round": {"draft": 700.0, "verify": verify}, **more}

        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "speed.machine.txt").write_text("a day\n", encoding="utf-8")
            for kind in ("stored", "stored_avx2", "bf16"):
                (folder / f"speed_{kind}.json").write_text(json.dumps([row("ctc", 0, 4000.0)]), encoding="utf-8")
            runs = [row("none", t, verify) for t, verify in ((0, 1300), (1, 1400), (0, 5300), (1, 9300), (0, 3300), (1, 3400))]
            (folder / "sampling.json").write_text(json.dumps(runs), encoding="utf-8")
            figures = performance_page.Figures(folder)
            self.assertIn("| set (2) | stored | avx2 | ctc | 2.00 | 5.0 | 700 | 4000 | 500 | 1.50 (1.40 - 1.60) | yes |",
                          figures.speed())
            self.assertIn("takes 4000 us greedy and 4100 us at temperature 1 (medians of 3 alternating runs, which took 2000 to "
                          "6000; 2100 to 10000 us); of two runs after one another the second takes +5.0 % (the median of the "
                          "pairs).", figures.sampling())

    def test_drafts(self):
        run = ("path {}\nfolder/a-ctc, us a round\nnodes     draft     min    verify     min   commit  d/verify   beta\n"
               "    6       {}     200      {}     900        7     0.4   2.00\n")
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "drafts.txt").write_text(run.format("fastest", 400, 1000) + run.format("avx2", 900, 3000) +
                                               run.format("fastest", 500, 2000) + run.format("fastest", 600, 1000),
                                               encoding="utf-8")
            (folder / "drafts.machine.txt").write_text("a day\n", encoding="utf-8")
            text = performance_page.Figures(folder).drafts()
        self.assertIn("| fastest | a-ctc | 6 | 500 | 1000 | 0.400 (0.250 - 0.600) |", text)
        self.assertIn("| avx2 | a-ctc | 6 | 900 | 3000 | 0.300 (0.300 - 0.300) |", text)

    def test_parts_of_the_profile(self):
        symbols = {"outrider::kernels::(anonymous namespace)::score_format<(outrider::CacheFormat)1>": "attention",
                   "outrider::kernels::(anonymous namespace)::tile<outrider::kernels::Q80, 6>": "matrices: integer tiles",
                   "outrider::attend": "attention",
                   "outrider::kernels::(anonymous namespace)::quantise_row": "quantising rows, norms, rotary, gate"}
        for symbol, part in symbols.items():
            self.assertEqual(part, next(name for name, pattern in performance_page.PARTS
                                        if performance_page.re.search(pattern, symbol)))

    def test_the_models_weights(self):
        self.assertEqual(performance_page.MATRIX_WEIGHTS, 134_479_872)


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""Runs the program as its users do, on a tiny random model: program_test.py PROGRAM TINY_GGUF [unittest options]"""
import json
import pathlib
import re

from program_case import MODEL, Case, main, outrider

ROW_FIELDS = {"drafter", "kind", "tokens", "rounds", "beta", "drafted", "accepted_per_depth", "tokens_per_second", "gamma",
              "gamma_low", "gamma_high", "identical", "differences", "seconds"}
STAGES = {"prefill", "draft", "verify", "accept", "commit", "other"}


class Generate(Case):
    def lines(self, *arguments, **more):
        out, _ = outrider("generate", "--model", MODEL, "--threads", 1, "--json", "-", *arguments, **more)
        return [json.loads(line) for line in out.decode().splitlines()]

    def test_text_comes_from_flag_or_stdin(self):
        flag, _ = outrider("generate", "--model", MODEL, "--prompt", "a b c", "-n", 12, "--drafter", "none")
        pipe, _ = outrider("generate", "--model", MODEL, "-n", 12, "--drafter", "ngram", stdin="a b c\n")
        self.assertEqual(flag, pipe)
        self.assertGreater(len(flag), 1)

    def test_json_lines_have_the_fields_of_the_design(self):
        lines = self.lines("--prompts", self.prompts(), "-n", 10)
        self.assertEqual([line["id"] for line in lines], ["p0", "p1", "p2", "p3"])
        for line in lines:
            self.assertLessEqual({"id", "prompt_tokens", "token_ids", "text", "finish", "stats"}, set(line))
            self.assertEqual(set(line["stats"]["seconds"]), STAGES)
            self.assertEqual(line["finish"], "stop" if len(line["token_ids"]) < 10 else line["finish"])
            self.assertEqual(line["stats"]["tokens"], len(line["token_ids"]))

    def test_ids_do_not_depend_on_drafter_nodes_or_batch(self):
        for options in ([], ["--temperature", 1, "--seed", 5], ["--temperature", 0.8, "--top-k", 20, "--top-p", 0.9]):
            ids = [[line["token_ids"] for line in self.lines("--prompts", self.prompts(), "-n", 24, *options, *how)]
                   for how in (["--drafter", "none"], ["--drafter", "ngram"], ["--drafter", "ngram", "--nodes", 3],
                               ["--drafter", "ngram+ngram", "--batch", 3], ["--drafter", "ngram", "--nodes", "auto"])]
            for other in ids[1:]:
                self.assertEqual(other, ids[0], options)
        self.assertNotEqual(self.lines("--prompt", "x y", "--temperature", 1, "--seed", 1)[0]["token_ids"],
                            self.lines("--prompt", "x y", "--temperature", 1, "--seed", 2)[0]["token_ids"])

    def test_log_probabilities(self):
        for law in ([], ["--logprob-law", "warped"]):
            asked = ["--prompts", self.prompts(), "-n", 16, "--temperature", 0.7, "--logprobs", 3, *law]
            plain = self.lines(*asked, "--drafter", "none")
            drafted = self.lines(*asked, "--drafter", "ngram", "--nodes", 5, "--batch", 4)
            self.assertEqual([line["logprobs"] for line in plain], [line["logprobs"] for line in drafted])
            for line in plain:
                self.assertEqual([entry["id"] for entry in line["logprobs"]], line["token_ids"])
                for entry in line["logprobs"]:
                    self.assertLess(entry["logprob"], 1e-6)
                    self.assertEqual(len(entry["top"]), 3)
                    self.assertGreaterEqual(entry["top"][0]["logprob"], entry["logprob"])
        table, _ = outrider("generate", "--model", MODEL, "--prompt", "a b", "-n", 5, "--drafter", "none", "--logprobs", 0)
        self.assertEqual(sum(b"-" in line for line in table.splitlines()[-5:]), 5)
        self.assertNotIn("logprobs", self.lines("--prompt", "a", "-n", 2)[0])
        outrider("generate", "--model", MODEL, "--prompt", "a", "--logprob-law", "warped", status=2)

    def test_raw_and_limit(self):
        raw = self.lines("--prompts", self.prompts(), "--limit", 2, "--raw", "-n", 4)
        chat = self.lines("--prompts", self.prompts(), "--limit", 2, "-n", 4)
        self.assertEqual(len(raw), 2)
        self.assertLess(raw[0]["prompt_tokens"], chat[0]["prompt_tokens"])

    def test_errors(self):
        base = ("generate", "--model", MODEL, "--prompt", "a")
        self.fails("generate", "--model", "nowhere.gguf", "--prompt", "a", words=["nowhere.gguf"])
        self.fails("generate", "--model", self.write("not.gguf", "hello hello hello hello"), "--prompt", "a",
                   words=["not.gguf", "GGUF"])
        self.fails(*base, "--drafter", "nonsense", words=["nonsense", "ngram", "folder"])
        self.fails(*base, "--drafter", "ngram+", words=["unknown drafter ''"])
        self.fails(*base, "--drafter", self.path, words=["config.json"])
        self.write("config.json", '{"kind": "oracle"}')
        self.fails(*base, "--drafter", self.path, words=["oracle"])
        self.fails("generate", "--model", MODEL, "--prompts", "nowhere.jsonl", words=["nowhere.jsonl"])
        broken = self.write("broken.jsonl", '{"prompt": "a"}\n{"prompt": \n')
        self.fails("generate", "--model", MODEL, "--prompts", broken, words=["broken.jsonl:2"])
        self.fails("generate", "--model", MODEL, words=["prompt is empty"])
        self.fails(*base, "--json", "/nowhere/x.json", words=["/nowhere/x.json"])
        self.fails(*base, "--nodes", "many", words=["many"], status=2)
        self.fails("generate", "--prompt", "a", words=["--model"], status=2)


class Compare(Case):
    def test_rows_agree_and_hold_every_field(self):
        report = self.path / "report.json"
        out, err = outrider("compare", "--model", MODEL, "--threads", 1, "--drafters", "ngram,ngram+ngram", "--prompts",
                            self.prompts(), "--limit", 3, "-n", 20, "--json", report)
        data = json.loads(report.read_text())
        self.assertEqual([row["drafter"] for row in data["rows"]], ["none", "ngram", "ngram+ngram"])
        self.assertEqual([row["kind"] for row in data["rows"]], ["none", "ngram", "ngram+ngram"])
        self.assertEqual(data["settings"]["max_tokens"], 20)
        self.assertEqual(data["settings"]["prompt_count"], 3)
        for row in data["rows"]:
            self.assertLessEqual(ROW_FIELDS, set(row))
            self.assertEqual(set(row["seconds"]), STAGES)
            self.assertTrue(row["identical"])
            self.assertEqual(row["differences"], [])
            self.assertEqual(row["tokens"], data["rows"][0]["tokens"])
            self.assertAlmostEqual(row["beta"], row["tokens"] / row["rounds"])
            self.assertLessEqual(row["gamma_low"], row["gamma"])
            self.assertGreaterEqual(row["gamma_high"], row["gamma"])
        plain = data["rows"][0]
        self.assertEqual((plain["beta"], plain["gamma"], plain["drafted"]), (1.0, 1.0, 0))
        self.assertEqual(len(out.decode().splitlines()), 4)

    def rows(self, *more):
        out, _ = outrider("compare", "--model", MODEL, "--threads", 1, "--prompts", self.prompts(), "--limit", 2, "-n", 12,
                          "--json", "-", *more)
        return json.loads(out)["rows"]

    def test_compare_takes_several_sizes_of_trees(self):
        rows = self.rows("--drafters", f"none,ngram,lm:{MODEL}", "--nodes", "auto,0,3")
        self.assertEqual([(row["kind"], row["nodes"]) for row in rows],
                         [("none", 0)] + [(kind, nodes) for kind in ("ngram", "lm") for nodes in ("auto", 0, 3)])
        self.assertEqual([row["drafted"] for row in rows if row["nodes"] == 0], [0, 0, 0])
        for row in rows:
            self.assertTrue(row["identical"])
            self.assertEqual(sum(prompt["tokens"] for prompt in row["prompts"]), row["tokens"])
            self.assertEqual(len(row["prompts"]), 2)
        self.assertGreater(rows[-1]["accepted"], 0)

    def test_a_policy_is_held_to_what_it_promises(self):
        for accept in ("unified", "block", "rejection"):
            for row in self.rows("--drafters", f"ngram,lm:{MODEL}", "--accept", accept):
                # greedy: the same text by every lossless policy
                self.assertEqual((row["text"], row["identical"]), ("same text", True))
            plain, drawn = self.rows("--drafters", f"lm:{MODEL}", "--accept", accept, "--temperature", 0.8)
            self.assertEqual((plain["text"], plain["identical"]), ("same text", True))
            self.assertEqual((drawn["text"], drawn["identical"], drawn["differences"]), ("same law", None, []))
        _, loose = self.rows("--drafters", f"lm:{MODEL}", "--accept", "lossy_top_k", "--accept-top", 280, "--nodes", 4,
                             "--minimum-block", 2)
        self.assertEqual((loose["text"], loose["identical"]), ("lossy", None))
        self.assertGreater(loose["beta"], 1.9)  # a node of every tree is accepted

    def test_policies_refuse_drafts_without_draws(self):
        base = ("generate", "--model", MODEL, "--prompt", "a", "-n", 4)
        self.fails(*base, "--accept", "rejection", "--tree", "best-first", "--drafter", f"lm:{MODEL}",
                   words=["drafter that samples"])
        self.fails(*base, "--accept", "block", "--chains", 2, "--drafter", f"lm:{MODEL}", words=["one sampled chain"])
        self.fails(*base, "--accept", "lossless", words=["lossless"], status=2)

    def test_stdout_is_json_alone_when_asked(self):
        out, _ = outrider("compare", "--model", MODEL, "--drafters", "none", "--prompts", self.prompts(2), "-n", 4,
                          "--json", "-")
        self.assertEqual(len(json.loads(out)["rows"]), 1)


class Distill(Case):
    def lines(self, data):
        return [json.loads(line) for line in data.read_text().splitlines()]

    def test_the_target_makes_prompts_up(self):
        data = self.path / "self.jsonl"
        distill = ("distill", "--model", MODEL, "--threads", 1, "--batch", 16, "--output", data, "-n", 8, "--seed", 3)
        outrider(*distill, "--self-prompts", 5)
        first = self.lines(data)
        self.assertEqual(len(first), 5)
        self.assertEqual(len({line["messages"][0]["content"] for line in first}), 5)
        for line in first:
            self.assertRegex(line["id"], r"^self/3/\d+$")
            self.assertEqual([message["role"] for message in line["messages"]], ["user", "assistant"])
        _, err = outrider(*distill, "--self-prompts", 9)
        self.assertIn("5 were there already", err)
        ids = [line["id"] for line in self.lines(data)]
        self.assertEqual(len(set(ids)), 9)
        # What was measured on stays out: with the made-up prompts excluded, a fresh run has none of them.
        prompts = self.write("measured.jsonl", "".join(json.dumps({"prompt": line["messages"][0]["content"]}) + "\n"
                                                       for line in self.lines(data)))
        again = self.path / "again.jsonl"
        outrider("distill", "--model", MODEL, "--threads", 1, "--batch", 16, "--output", again, "-n", 8, "--seed", 3,
                 "--self-prompts", 5, "--exclude", prompts)
        long = {line["messages"][0]["content"] for line in first if len(line["messages"][0]["content"].split()) >= 8}
        self.assertFalse(long & {line["messages"][0]["content"] for line in self.lines(again)})

    def test_raw_texts_go_on(self):
        data = self.path / "raw.jsonl"
        distill = ("distill", "--model", MODEL, "--threads", 1, "--output", data, "-n", 8, "--raw")
        outrider(*distill, "--prompts", self.prompts(3))
        lines = {line["id"]: line for line in self.lines(data)}
        self.assertEqual(sorted(lines), ["p0", "p1", "p2"])
        out, _ = outrider("generate", "--model", MODEL, "--threads", 1, "--raw", "--prompts", self.prompts(3), "-n", 8,
                          "--json", "-")
        for line in map(json.loads, out.decode().splitlines()):  # as `generate --raw` continues it
            row = lines[line["id"]]
            self.assertEqual(row["prompt_tokens"], line["prompt_tokens"])
            self.assertEqual(row["completion_ids"], line["token_ids"])
            self.assertEqual(row["completion"], line["text"])
            self.assertNotIn("messages", row)
        _, err = outrider(*distill, "--prompts", self.prompts(4))
        self.assertIn("3 were there already", err)
        self.assertEqual(len(self.lines(data)), 4)
        self.fails(*distill[:-1], "--prompts", self.prompts(4), words=["raw.jsonl:1", "--raw"])  # no conversations to it

    def test_beginnings_of_texts_are_made_up(self):
        data = self.path / "self.jsonl"
        distill = ("distill", "--model", MODEL, "--threads", 1, "--output", data, "-n", 8, "--raw", "--prompt-tokens", 6,
                   "--self-prompts")
        outrider(*distill, 4)
        outrider(*distill, 6)
        lines = self.lines(data)
        self.assertEqual(len({line["prompt"] for line in lines}), 6)
        self.assertEqual(len({line["id"] for line in lines}), 6)
        self.fails(*distill, 7, "--prompt-tokens", 500, "--output", self.path / "none.jsonl", words=["fewer tokens"])

    def test_errors(self):
        self.fails("distill", "--model", MODEL, "--output", self.path / "x", words=["--prompts", "--self-prompts"], status=2)
        self.fails("distill", "--model", MODEL, "--output", self.path / "x", "--self-prompts", 2, "--exclude",
                   "nowhere.jsonl", words=["nowhere.jsonl"])


class Tokenize(Case):
    def test_strings_come_back(self):
        texts = ["", "hello  world 123", "zeile\nzwei\t\"", "grün 😀", "<|im_start|>user"]
        out, _ = outrider("tokenize", "--model", MODEL, stdin="".join(json.dumps(text) + "\n" for text in texts))
        lines = [json.loads(line) for line in out.decode().splitlines()]
        self.assertEqual([line["text"] for line in lines], texts)
        self.assertEqual(lines[0]["ids"], [])
        self.fails("tokenize", "--model", MODEL, stdin='5\n', words=["line 1"])

    def test_conversations_become_text_and_ids(self):
        chat = {"messages": [{"role": "user", "content": "Hi <|im_end|>"}], "tools": [{"b": 1, "a": 2}]}
        out, _ = outrider("tokenize", "--chat", "--model", MODEL, stdin=json.dumps(chat) + "\n")
        line = json.loads(out)
        self.assertEqual(line["text"], "<|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant\n")
        plain, _ = outrider("tokenize", "--model", MODEL, stdin=json.dumps(line["text"]) + "\n")
        self.assertLess(len(json.loads(plain)["ids"]), len(line["ids"]))  # what the user writes is no token
        file = self.path / "own.jinja"
        file.write_text("{{ tools | tojson }}{{ mood }}")
        out, _ = outrider("tokenize", "--chat", "--model", MODEL, "--template-file", file,
                          stdin=json.dumps({**chat, "mood": "calm"}) + "\n")
        self.assertEqual(json.loads(out)["text"], '[{"b": 1, "a": 2}]calm')
        file.write_text("{{ raise_exception('no') }}")
        self.fails("tokenize", "--chat", "--model", MODEL, "--template-file", file, stdin=json.dumps(chat) + "\n",
                   words=["line 1", "no", "--raw"])
        self.fails("tokenize", "--chat", "--model", MODEL, stdin="{}\n", words=["line 1", "messages"])


class Inspect(Case):
    def test_trees_are_drawn(self):
        out, _ = outrider("inspect", "--model", MODEL, "--drafter", "ngram", "--prompt", "a b a b a b", "-n", 24)
        text = out.decode()
        rounds = [line for line in text.splitlines() if line.startswith("round ")]
        self.assertGreater(len(rounds), 1)
        self.assertIn("nodes accepted, emits", rounds[0])
        self.assertTrue(text.splitlines()[-1].startswith('text: "'))
        kept = sum(int(line.split(": ")[1].split(" of ")[0]) for line in rounds)
        self.assertEqual(kept, text.count("─* "))

    def test_a_model_is_described(self):
        text = outrider("inspect", "--model", MODEL)[0].decode()
        for line in ("family: \"llama\"", "supported: yes", "layers: ", "hidden size: ", "context: ", "weights as stored: ",
                     "cache of keys and values: ", "tokenizer: gpt2", "template: ", "texts end with ", "ngram", "medusa, hydra"):
            self.assertIn(line, text)
        layers = int(text.split("\nlayers: ")[1].split("\n")[0])
        row = next(line.split() for line in text.splitlines() if line.startswith("  attn_q "))
        self.assertEqual(int(row[1]), layers)
        total = int(text.split("\ntensors: ")[1].split(", ")[1].split()[0])
        kinds = [line.split() for line in text.split("format\n")[1].split("\ntokenizer:")[0].splitlines()]
        self.assertEqual(sum(int(kind[2]) for kind in kinds), total)

    def test_memory_is_told_for_every_way_of_holding_weights(self):
        def held(model):
            lines = outrider("inspect", "--model", model)[0].decode().split("a token in the cache\n")[1].splitlines()[:5]
            return {row[0]: row[1:] for row in (line.split() for line in lines)}
        for model in (MODEL, pathlib.Path(MODEL).parent.parent / "tiny-hf"):
            table = held(model)
            self.assertEqual(list(table), ["auto", "stored", "bf16", "int8", "f32"])
            kilobytes = {}
            for weights, (size, unit, token, token_unit) in table.items():
                self.assertEqual((unit, token_unit), ("KB", "bytes"))
                self.assertEqual(int(token), 512 if weights == "f32" else 256)
                kilobytes[weights] = float(size)
            self.assertEqual(kilobytes["auto"], kilobytes["stored" if model == MODEL else "bf16"])
            self.assertAlmostEqual(kilobytes["f32"], 2 * kilobytes["bf16"], delta=0.2)
            self.assertAlmostEqual(kilobytes["int8"] / kilobytes["bf16"], 34 / 64, delta=0.02)

    def changed(self, name, *changes):
        """The model with bytes replaced by as many others."""
        data = pathlib.Path(MODEL).read_bytes()
        for old, new in changes:
            assert data.count(old) >= 1 and len(old) == len(new), old
            data = data.replace(old, new)
        path = self.path / name
        path.write_bytes(data)
        return path

    def test_what_is_missing_is_named(self):
        pre = pathlib.Path(MODEL).read_bytes().split(b"tokenizer.ggml.pre")[1]
        name = pre[12:12 + int.from_bytes(pre[4:12], "little")]
        for path, words in ((self.changed("family.gguf", (b"llama", b"lambs")), ("architecture: ", "lambs")),
                            (self.changed("words.gguf", (b"tokenizer.ggml.pre" + pre[:12] + name,
                                                         b"tokenizer.ggml.pre" + pre[:12] + b"?" * len(name))),
                             ("tokenizer: ", "?" * len(name))),
                            (self.changed("tensors.gguf", (b"blk.1.attn_q.weight", b"blk.1.attn_z.weight")), ("tensors: ", "attn_"))):
            text = outrider("inspect", "--model", path)[0].decode()
            self.assertIn("supported: no", text)
            self.assertIn("drafters: none", text)
            self.assertIn("weights as stored: ", text)
            for word in words:
                self.assertIn(word, text)

    def test_neither_model_nor_prompt(self):
        self.fails("inspect", "--model", self.path / "none.gguf", words=["no such file"])
        self.fails("inspect", "--model", self.write("text.gguf", "GGUF is not enough"), words=["text.gguf"])
        for option in (("--nodes", 4), ("--stop", "x"), ("--threads", 1), ("--weights", "f32"), ("--drafter", "ngram"), ("-n", 4)):
            self.fails("inspect", "--model", MODEL, *option, words=["--prompt"], status=2)
        self.fails("inspect", "--model", MODEL, "--prompt", "a", words=["--drafter"], status=2)

    def test_a_page(self):
        page = self.path / "rounds.html"
        ask = ("inspect", "--model", MODEL, "--drafter", "ngram", "--prompt", "a b a b a b", "-n", 24)
        out, _ = outrider(*ask, "--html", page)
        self.assertEqual(out, b"")
        story = json.loads(re.search(r'id="story">(.*?)</script>', page.read_text(encoding="utf-8"))[1])
        drawn = [line for line in outrider(*ask)[0].decode().splitlines() if line.startswith("round ")]
        self.assertEqual(len(story["rounds"]), len(drawn))
        for one, line in zip(story["rounds"], drawn):
            self.assertIn(f": {one['accepted']} of {len(one['nodes']) - 1} nodes accepted", line)
            self.assertGreater(one["seconds"]["verify"], 0)
        self.fails(*ask, "--html", MODEL, words=["would be overwritten"])


class Bench(Case):
    NODES = [0, 1, 2, 4, 6, 8, 12, 16, 24, 32]

    def bench(self, *arguments, **more):
        return outrider("bench", "--model", MODEL, "--threads", 1, "--seconds", 1, *arguments, **more)[0].decode()

    def test_page_and_json_hold_the_same_table(self):
        file = self.path / "bench.json"
        page = self.bench("--drafter", "ngram", "--json", file).splitlines()
        report = json.loads(file.read_text())
        for words in ("machine: ", "memory: ", "path "):
            self.assertEqual(sum(line.startswith(words) for line in page), 1, words)
        self.assertEqual(sum("machine is quiet" in line or "MACHINE IS BUSY" in line for line in page), 1)
        heads = [i for i, line in enumerate(page) if line.startswith("nodes ")]
        self.assertEqual(len(heads), len(report["weights"]))
        for at, way in zip(heads, report["weights"]):
            self.assertEqual(page[at].split(), "nodes ms ratio at 1.5 at 2 at 2.5 at 3 at 4 beta gamma".split())
            self.assertTrue(page[at - 1].startswith(f"weights {way['description']}: "))
            rows = [line.split() for line in page[at + 1:at + 1 + len(self.NODES)]]
            self.assertEqual([int(row[0]) for row in rows], self.NODES)
            self.assertEqual([point["nodes"] for point in way["curve"]], self.NODES)
            for row, point in zip(rows, way["curve"]):
                self.assertEqual(len(row), 10)
                self.assertEqual(row[1], f"{1e3 * point['seconds']:.2f}")
                self.assertEqual(row[9], "-" if point["gamma"] is None else f"{point['gamma']:.2f}")
                self.assertEqual(point["gain_at_beta"]["4"] is None, point["nodes"] < 3)
                self.assertEqual(point["beta"] is None, point["nodes"] > 16)
            betas = [point["beta"] for point in way["curve"][:8]]
            self.assertEqual(betas[0], 1)
            self.assertEqual(betas, sorted(betas))
            seconds = [point["seconds"] for point in way["curve"]]
            self.assertEqual(seconds, sorted(seconds))
        self.assertEqual(len({cell["path"] for cell in report["multiply"]}) * 4 * 2, len(report["multiply"]))
        self.assertTrue(all(cell["operations_per_second"] > 0 for cell in report["multiply"]))
        self.assertGreater(report["machine"]["bytes_per_second"], 0)
        self.assertEqual(report["machine"]["threads"], 1)
        drafter = report["drafter"]
        self.assertEqual((drafter["kind"], drafter["nodes"]), ("ngram", 16))
        self.assertEqual(sum(drafter["rounds_by_size"]), drafter["rounds"])
        self.assertGreater(drafter["rounds"], 0)
        self.assertIn(report["best"]["weights"], [way["weights"] for way in report["weights"]])
        self.assertIn("best here", page[-1])

    def test_only_what_was_asked_for(self):
        report = json.loads(self.bench("--drafter", "none", "--weights", "f32", "--json", "-"))
        self.assertEqual([way["weights"] for way in report["weights"]], ["f32"])
        self.assertIsNone(report["drafter"])
        self.assertEqual(report["best"]["nodes"], 0)
        self.assertFalse(report["best"]["drafting"])
        brief = self.bench("--drafter", "none", "--brief")
        self.assertNotIn("nodes  ", brief)
        self.assertIn("best here without drafts: ", brief)

    def test_nothing_is_written_unasked(self):
        before = sorted(self.path.rglob("*"))
        self.bench("--drafter", "ngram", "--brief", env={"XDG_CACHE_HOME": self.path, "HOME": self.path})
        self.assertEqual(sorted(self.path.rglob("*")), before)

    def test_errors(self):
        base = ("bench", "--model", MODEL, "--seconds", 1)
        self.fails("bench", "--model", "nowhere.gguf", words=["nowhere.gguf"])
        self.fails(*base, "--drafter", "nonsense", words=["nonsense", "ngram", "folder"])
        self.fails(*base, "--json", "/nowhere/x.json", words=["/nowhere/x.json"])
        self.fails(*base, "--json", MODEL, words=["would be overwritten"])
        self.fails(*base, "--seconds", 0, words=["--seconds"], status=2)


class Train(Case):
    """distill, train, resume, then draft with the result; the whole way that a user goes."""

    def test_a_drafter_of_ones_own(self):
        data, drafter = self.path / "data.jsonl", self.path / "drafter"
        prompts = self.prompts(72)
        outrider("distill", "--model", MODEL, "--threads", 1, "--prompts", prompts, "--limit", 70, "--output", data, "-n", 16)
        lines = [json.loads(line) for line in data.read_text().splitlines()]
        self.assertEqual(len(lines), 70)
        for line in lines:
            self.assertEqual([message["role"] for message in line["messages"]], ["user", "assistant"])
            self.assertLessEqual(len(line["completion_ids"]), 16)
        with data.open("a") as half:
            half.write('{"id": "p71", "mess')  # a run that was killed while it wrote
        outrider("distill", "--model", MODEL, "--threads", 1, "--prompts", prompts, "--output", data, "-n", 16)
        self.assertEqual(sorted(json.loads(line)["id"] for line in data.read_text().splitlines()),
                         sorted(f"p{i}" for i in range(72)))

        train = ("train", "--model", MODEL, "--threads", 1, "--kind", "ctc", "--data", data, "--output", drafter,
                 "--vocabulary", 64, "--frames", 4, "--held-out", 1)
        outrider(*train, "--anchors", 512)
        out, _ = outrider(*train, "--anchors", 1024, "--resume")
        self.assertIn("drafter", out.decode())
        config = json.loads((drafter / "config.json").read_text())
        self.assertEqual(config["kind"], "ctc")

        out, _ = outrider("compare", "--model", MODEL, "--threads", 1, "--drafters", f"none,{drafter},{drafter}+ngram",
                          "--prompts", prompts, "--limit", 2, "-n", 24, "--nodes", 8, "--json", "-")
        rows = json.loads(out)["rows"]
        self.assertEqual([row["kind"] for row in rows], ["none", "ctc", "ctc+ngram"])
        self.assertTrue(all(row["identical"] for row in rows))
        self.assertGreater(rows[1]["drafted"], 0)

        # Raw texts need no word of it to be trained on, beside conversations too.
        raw = self.path / "raw.jsonl"
        outrider("distill", "--model", MODEL, "--threads", 1, "--prompts", prompts, "--output", raw, "-n", 16, "--raw")
        outrider("train", "--model", MODEL, "--threads", 1, "--kind", "medusa", "--data", raw, "--data", data, "--output",
                 self.path / "heads", "--vocabulary", 64, "--held-out", 1, "--anchors", 512)
        self.assertEqual(json.loads((self.path / "heads/config.json").read_text())["training"]["conversations"], 144 - 64)

        config["target"]["fingerprint"] = "another"
        (drafter / "config.json").write_text(json.dumps(config))
        self.fails("generate", "--model", MODEL, "--prompt", "a", "--drafter", drafter, words=["another", "target"])


if __name__ == "__main__":
    main()

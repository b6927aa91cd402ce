#!/usr/bin/env python3
"""Promises of sameness, from the outside: sameness_test.py PROGRAM TINY_GGUF [unittest options]"""
import json
import signal
import subprocess
import time

from program_case import ENVIRONMENT, MODEL, PROGRAM, Case, main, outrider

SAMPLE = ("--temperature", 1, "--seed", 5, "-n", 12)


class Seeds(Case):
    """A sampled text is a function of target, prompt, options and seed."""

    ROWS = [{"id": "a", "prompt": "Name a color."}, {"id": "b", "prompt": "Name a fruit."}, {"id": "c", "prompt": "Name a city."},
            {"id": "d", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a river."}]}]

    def file(self, name, rows):
        return self.write(name, "".join(json.dumps(row) + "\n" for row in rows))

    def texts(self, rows, *options, drafter="ngram"):
        out, _ = outrider("generate", "--model", MODEL, "--threads", 1, "--prompts", self.file("p.jsonl", rows), "--drafter",
                          drafter, *SAMPLE, *options, "--json", "-")
        lines = [json.loads(line) for line in out.decode().splitlines()]
        return {line["id"]: line["token_ids"] for line in lines}

    def test_not_of_the_row(self):
        whole = self.texts(self.ROWS)
        self.assertEqual(len(set(map(str, whole.values()))), 4)
        self.assertEqual(self.texts(self.ROWS[::-1]), whole)
        self.assertEqual(self.texts(self.ROWS, "--batch", 3, drafter="none"), whole)
        self.assertEqual(self.texts(self.ROWS, "--limit", 2), {name: whole[name] for name in "ab"})
        for row in self.ROWS:
            self.assertEqual(self.texts([row]), {row["id"]: whole[row["id"]]})
        other = self.texts(self.ROWS, "--seed", 6)
        self.assertTrue(all(other[name] != whole[name] for name in whole))

    def test_not_of_the_id_or_the_command(self):
        whole = self.texts(self.ROWS)
        unnamed = [{key: value for key, value in row.items() if key != "id"} for row in self.ROWS]
        self.assertEqual(list(self.texts(unnamed).values()), list(whole.values()))
        for row in self.ROWS[:2]:
            out, _ = outrider("generate", "--model", MODEL, "--threads", 1, "--prompt", row["prompt"], *SAMPLE, "--json", "-")
            self.assertEqual(json.loads(out)["token_ids"], whole[row["id"]])
        output = self.path / "out.jsonl"
        outrider("distill", "--model", MODEL, "--threads", 1, "--prompts", self.file("p.jsonl", self.ROWS[::-1]), *SAMPLE,
                 "--output", output)
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        self.assertEqual({line["id"]: line["completion_ids"] for line in lines}, whole)
        texts, _ = outrider("generate", "--model", MODEL, "--threads", 1, "--prompt", "Name a color.", *SAMPLE, "--stop", "e")
        drawn, _ = outrider("inspect", "--model", MODEL, "--threads", 1, "--prompt", "Name a color.", *SAMPLE, "--stop", "e",
                            "--drafter", "ngram")
        text = drawn.decode().splitlines()[-1]
        self.assertEqual(json.loads(text.removeprefix("text: ")), texts.decode()[:-1])

    def test_equal_rows_differ_where_asked(self):
        row = {"prompt": "Name a color."}
        texts = list(self.texts([row, row, {**row, "sample": 1}, {**row, "sample": 2}, {**row, "sample": 0}]).values())
        self.assertEqual(texts[0], texts[1])
        self.assertEqual(texts[0], texts[4])
        self.assertEqual(len({str(text) for text in texts}), 3)
        again = list(self.texts([{**row, "sample": 2}]).values())
        self.assertEqual(again[0], texts[3])
        self.fails("generate", "--model", MODEL, "--prompts", self.file("p.jsonl", [{**row, "sample": -1}]), words=["`sample`"])

    def test_compare_decodes_the_same(self):
        def lengths(rows):
            out, _ = outrider("compare", "--model", MODEL, "--threads", 1, "--prompts", self.file("p.jsonl", rows), *SAMPLE,
                              "--drafters", "ngram", "--json", "-")
            return [(row["identical"], row["tokens"]) for row in json.loads(out)["rows"]]
        self.assertEqual(lengths(self.ROWS), lengths(self.ROWS[::-1]))


class Stops(Case):
    def test_inspect_ends_where_generate_does(self):
        out, _ = outrider("generate", "--model", MODEL, "--threads", 1, "--prompt", "count one two", "-n", 24, "--json", "-")
        text = json.loads(out)["text"]
        self.assertGreater(len(text), 4)
        for stop in (text[2], text[1:4], text[-1], "never there"):
            for more in ((), ("--drafter", "ngram", "--nodes", 5)):
                inspect = ("inspect", "--model", MODEL, "--threads", 1, "--prompt", "count one two", "-n", 24, "--stop", stop)
                out, _ = outrider(*inspect, *(more or ("--drafter", "none")))
                shown = out.decode().splitlines()[-1]
                self.assertEqual(shown, "text: " + quoted(text[:text.find(stop)] if stop in text else text))


def quoted(text):
    """As `inspect` quotes: JSON, with what is not ASCII as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\\b", "\\u0008").replace("\\f", "\\u000c").replace("\x7f", "\\u007f")


class Distilled(Case):
    """Every row is answered once, whatever was answered before."""

    def distill(self, name, rows, *options):
        file = self.write(name, "".join(json.dumps(row) + "\n" for row in rows))
        outrider("distill", "--model", MODEL, "--threads", 1, "--prompts", file, "-n", 8, "--output", self.path / "out.jsonl",
                 *options)
        return [json.loads(line) for line in (self.path / "out.jsonl").read_text().splitlines()]

    def test_files_without_ids(self):
        a = [{"prompt": f"Name a {thing}."} for thing in ("color", "fruit", "city")]
        b = [{"prompt": f"Name a {thing}."} for thing in ("river", "metal")]
        for name, rows, count in (("a", a, 3), ("b", b, 5), ("a", a, 5), ("b", b[::-1], 5), ("c", a + b, 5)):
            lines = self.distill(name, rows)
            self.assertEqual(len(lines), count)
            self.assertEqual(len({line["id"] for line in lines}), count)

    def test_rows_that_share_an_id(self):
        rows = [{"id": "x", "prompt": f"Name a {thing}."} for thing in ("color", "fruit", "city")]
        self.assertEqual(len(self.distill("rows", rows, "--limit", 1)), 1)
        self.assertEqual(sorted(line["messages"][0]["content"] for line in self.distill("rows", rows)),
                         ["Name a city.", "Name a color.", "Name a fruit."])

    def test_samples_of_a_prompt(self):
        rows = [{"prompt": "Name a color.", "sample": i} for i in range(4)]
        options = ("--temperature", 1, "--seed", 3)
        self.assertEqual(len(self.distill("rows", rows[2:], *options)), 2)
        lines = self.distill("rows", rows, *options)
        self.assertEqual(sorted(line.get("sample", 0) for line in lines), [0, 1, 2, 3])
        self.assertEqual(len({line["id"] for line in lines}), 4)
        self.assertEqual(len({str(line["completion_ids"]) for line in lines}), 4)


class Retrain(Case):
    """A drafter that is there is not lost by a command given twice."""

    def setUp(self):
        super().setUp()
        self.data, self.drafter = self.path / "data.jsonl", self.path / "drafter"
        outrider("distill", "--model", MODEL, "--threads", 1, "--prompts", self.prompts(80), "--output", self.data, "-n", 12)
        self.train = ("train", "--model", MODEL, "--threads", 1, "--kind", "medusa", "--data", self.data, "--output",
                      self.drafter, "--held-out", 1, "--draft-heads", 1, "--vocabulary", 32, "--features",
                      self.path / "features")

    def weights(self):
        return (self.drafter / "model.safetensors").read_bytes()

    def test_a_finished_folder(self):
        outrider(*self.train, "--anchors", 64)
        first = self.weights()
        self.fails(*self.train, "--anchors", 128, words=["holds a drafter already", "resume", "force"])
        self.assertEqual(self.weights(), first)
        outrider(*self.train, "--anchors", 64, "--resume")  # nothing is left to do
        self.assertEqual(self.weights(), first)
        outrider(*self.train, "--anchors", 64, "--force")
        self.assertEqual(self.weights(), first)  # one plan, one set of weights
        outrider(*self.train, "--anchors", 640, "--force")
        self.assertNotEqual(self.weights(), first)
        self.fails(*self.train, "--resume", "--force", words=["--force"], status=2)

    def test_a_stopped_run_says_so(self):
        for sent in (signal.SIGINT, signal.SIGTERM):
            process = subprocess.Popen([PROGRAM, *map(str, self.train), "--anchors", "100000000", "--report-seconds", "0.05",
                                        "--force"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True)
            while "step" not in (line := process.stderr.readline()):
                self.assertNotEqual(line, "", "the run ended by itself")
            time.sleep(0.1)
            process.send_signal(sent)
            out, _ = process.communicate(timeout=120)
            self.assertEqual(process.returncode, 128 + sent)
            self.assertIn("stopped; --resume goes on", out)
            self.assertTrue((self.drafter / "checkpoint.safetensors").exists())
        self.fails(*self.train, "--anchors", 64, words=["holds a drafter already"])

    def test_too_few_texts(self):
        for kind in ("ctc", "medusa", "hydra"):
            self.fails("train", "--model", MODEL, "--kind", kind, "--data", self.data, "--anchors", 64, "--output",
                       self.path / "few", words=["80 conversations", "held out"])
        self.assertFalse((self.path / "few" / "config.json").exists())


if __name__ == "__main__":
    main()

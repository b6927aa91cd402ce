#!/usr/bin/env python3
"""What the program writes is there or its exit status says so: output_test.py PROGRAM TINY_GGUF [unittest options]"""
import json
import os
import resource
import signal
import subprocess
import threading

from program_case import ENVIRONMENT, MODEL, PROGRAM, Case, main, outrider

PROMPT = "count one two one two"


def file_size_limit(size):
    """A disk that is full after so many bytes of a file."""
    def set_limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return set_limit


class Output(Case):
    """Standard output that takes nothing: a full disk, a closed stream, a reader that left."""

    def commands(self):
        prompts = self.prompts(3)
        decode = ("--model", MODEL, "--threads", 1, "-n", 4)
        yield "help", ("--help",), ""
        yield "help of a command", ("generate", "--help"), ""
        yield "version", ("--version",), ""
        yield "streamed text", ("generate", *decode, "--prompt", PROMPT), ""
        yield "texts", ("generate", *decode, "--prompts", prompts), ""
        yield "texts beside a report", ("generate", *decode, "--prompts", prompts, "--json", self.path / "lines.jsonl"), ""
        yield "JSON lines", ("generate", *decode, "--prompts", prompts, "--json", "-"), ""
        yield "table", ("compare", *decode, "--drafters", "ngram", "--prompts", prompts), ""
        yield "report", ("compare", *decode, "--drafters", "ngram", "--prompts", prompts, "--json", "-"), ""
        yield "trees", ("inspect", *decode, "--drafter", "ngram", "--prompt", PROMPT), ""
        yield "ids", ("tokenize", "--model", MODEL), '"a"\n"b"\n'

    def lost(self, what, arguments, stdin, status=1, **streams):
        with self.subTest(what):
            done = subprocess.run([PROGRAM, *map(str, arguments)], input=stdin.encode(), stderr=subprocess.PIPE,
                                  env=ENVIRONMENT, timeout=300, **streams)
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertIn(b"standard output: writing failed", done.stderr)

    def test_a_full_disk(self):
        for command in self.commands():
            with open("/dev/full", "wb") as full:
                self.lost(*command, stdout=full)

    def test_a_reader_that_left(self):
        for ignored in (False, True):
            for command in self.commands():
                reader, writer = os.pipe()
                os.close(reader)
                self.lost(*command, stdout=writer, restore_signals=not ignored)
                os.close(writer)

    def test_a_closed_stream(self):
        for command in self.commands():
            self.lost(*command, preexec_fn=lambda: os.close(1))

    def test_a_report_beside_lost_output_is_kept(self):
        report = self.path / "report.json"
        with open("/dev/full", "wb") as full:
            self.lost("table", ("compare", "--model", MODEL, "--threads", 1, "-n", 4, "--drafters", "ngram", "--prompts",
                                self.prompts(2), "--json", report), "", stdout=full)
        self.assertEqual(len(json.loads(report.read_text())["rows"]), 2)

    def test_errors_that_nobody_reads_are_errors(self):
        for stream in ("/dev/full", None):
            command = [PROGRAM, "generate", "--model", "nowhere.gguf", "--prompt", "a"]
            if stream is None:
                done = subprocess.run(command, env=ENVIRONMENT, preexec_fn=lambda: os.close(2))
            else:
                with open(stream, "wb") as full:
                    done = subprocess.run(command, env=ENVIRONMENT, stderr=full)
            self.assertEqual(done.returncode, 1)

    def test_progress_that_nobody_reads_is_not_needed(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([PROGRAM, "distill", "--model", MODEL, "--threads", "1", "--prompts", self.prompts(2), "-n",
                                   "4", "--output", self.path / "out.jsonl"], env=ENVIRONMENT, stderr=full, timeout=300)
        self.assertEqual(done.returncode, 0)
        self.assertEqual(len((self.path / "out.jsonl").read_text().splitlines()), 2)

    def test_input_that_cannot_be_read(self):
        for arguments in (("tokenize", "--model", MODEL), ("generate", "--model", MODEL),
                          ("generate", "--model", MODEL, "--prompts", "-")):
            folder = os.open("/", os.O_RDONLY)
            done = subprocess.run([PROGRAM, *arguments], stdin=folder, capture_output=True, env=ENVIRONMENT, timeout=300)
            os.close(folder)
            self.assertEqual((done.returncode, done.stdout), (1, b""))
            self.assertIn(b"standard input: reading failed", done.stderr)


class Reports(Case):
    """Files that commands write: the old one stays until the new one is whole."""

    def writers(self, report):
        prompts = self.prompts(3)
        yield "generate", ("generate", "--model", MODEL, "--threads", 1, "-n", 4, "--prompts", prompts, "--json", report)
        yield "compare", ("compare", "--model", MODEL, "--threads", 1, "-n", 4, "--drafters", "ngram", "--prompts", prompts,
                          "--json", report)

    def test_a_mistake_destroys_nothing(self):
        report = self.write("report.json", "old")
        self.write("bad.jsonl", '{"prompt": "a"}\n{\n')
        mistakes = (("--drafter", "typo"), ("--model", "nowhere.gguf"), ("--prompts", "nowhere.jsonl"),
                    ("--prompts", self.path / "bad.jsonl"), ("--drafter", self.path),
                    ("--drafter", "lm:nowhere.gguf"), ("--tree", "static"), ("--pass-times", self.path / "bad.jsonl"),
                    ("--device", "cuda:77"))
        for name, arguments in self.writers(report):
            for mistake in mistakes:
                with self.subTest(name, mistake=mistake):
                    before = sorted(os.listdir(self.path))
                    mistake = ["--drafters" if word == "--drafter" and name == "compare" else word for word in mistake]
                    outrider(*arguments, *mistake, status=1)
                    self.assertEqual(report.read_text(), "old")
                    self.assertEqual(sorted(os.listdir(self.path)), before)

    def test_the_new_one_takes_its_place(self):
        report = self.write("report.json", "old " * 10000)
        for name, arguments in self.writers(report):
            outrider(*arguments)
            lines = report.read_text().splitlines()
            if name == "generate":
                self.assertEqual([json.loads(line)["id"] for line in lines], ["p0", "p1", "p2"])
            else:
                self.assertEqual(len(json.loads("\n".join(lines))["rows"]), 2)
        self.assertEqual(sorted(os.listdir(self.path)), ["prompts.jsonl", "report.json"])

    def test_a_full_disk(self):
        for name, arguments in self.writers("/dev/full"):
            with self.subTest(name):
                _, error = outrider(*arguments, status=1)
                self.assertIn("--json: '/dev/full'", error)
        report = self.write("report.json", "old")
        for name, arguments in self.writers(report):
            with self.subTest(name):
                _, error = outrider(*arguments, "--pass-times", "none", status=1, preexec=file_size_limit(300))
                self.assertIn("report.json' cannot be written to the end", error)
                self.assertEqual(report.read_text(), "old")

    def test_distilled_text_on_a_full_disk_goes_on(self):
        output = self.path / "out.jsonl"
        distill = ("distill", "--model", MODEL, "--threads", 1, "-n", 8, "--prompts", self.prompts(6), "--output", output)
        _, error = outrider(*distill, status=1, preexec=file_size_limit(500))
        self.assertIn("out.jsonl' failed", error)
        self.assertLessEqual(output.stat().st_size, 500)
        outrider(*distill)
        self.assertEqual(sorted(json.loads(line)["id"] for line in output.read_text().splitlines()),
                         [f"p{i}" for i in range(6)])

    def test_pipes_get_what_files_get(self):
        for name, arguments in self.writers(self.path / "pipe"):
            os.mkfifo(self.path / "pipe")
            got = []
            reader = threading.Thread(target=lambda: got.append((self.path / "pipe").read_text()))
            reader.start()
            outrider(*arguments)
            reader.join()
            self.assertIn('"tokens_per_second"', got[0], name)
            os.unlink(self.path / "pipe")

    def test_what_is_read_is_not_overwritten(self):
        prompts = self.prompts(3)
        text = prompts.read_text()
        for name, arguments in self.writers(prompts):
            with self.subTest(name):
                outrider(*arguments, status=1)
                self.assertEqual(self.prompts(3).read_text(), text)
        outrider("distill", "--model", MODEL, "--prompts", prompts, "--output", prompts, status=1)
        self.assertEqual(prompts.read_text(), text)

    def test_distill_writes_ordinary_files_alone(self):
        os.mkfifo(self.path / "pipe")
        for output in ("/dev/stdout", "/dev/null", "/dev/full", "/dev/zero", self.path / "pipe", self.path,
                       self.path / "none" / "out.jsonl"):
            with self.subTest(output=output):
                self.fails("distill", "--model", "nowhere.gguf", "--self-prompts", 2, "--output", output, words=["--output"])
        notes = self.write("notes.txt", "a line without its break")
        self.fails("distill", "--model", MODEL, "--self-prompts", 2, "--output", notes, words=["notes.txt:1"])
        half = self.write("half.jsonl", '{"id": "p0", "mess')
        outrider("distill", "--model", "nowhere.gguf", "--self-prompts", 2, "--output", half, status=1)
        self.assertEqual((notes.read_text(), half.read_text()), ("a line without its break", '{"id": "p0", "mess'))


class Names(Case):
    """Names that are no UTF-8, in everything that holds names."""

    def setUp(self):
        super().setUp()
        folder = os.fsencode(self.path)
        self.model, self.prompts_file, self.report = (folder + b"/" + name
                                                      for name in (b"mod\xe9l.gguf", b"caf\xe9.jsonl", b"r\xff.json"))
        os.symlink(MODEL, self.model)
        with open(self.prompts_file, "w", encoding="utf-8") as file:
            for i in range(2):
                file.write(json.dumps({"id": f"ü{i}", "prompt": PROMPT}) + "\n")

    def test_reports(self):
        compare = ("compare", "--model", self.model, "--threads", 1, "-n", 4, "--prompts", self.prompts_file)
        outrider(*compare, "--drafters", b"ngram,lm:" + self.model, "--json", self.report)
        with open(self.report, encoding="utf-8") as file:
            data = json.load(file)
        settings, rows = data["settings"], data["rows"]
        self.assertTrue(settings["prompts"].endswith("/caf\\xE9.jsonl"), settings["prompts"])
        self.assertTrue(settings["model"].endswith("/mod\\xE9l.gguf"))
        self.assertTrue(settings["drafters"][1].endswith("/mod\\xE9l.gguf"))
        self.assertEqual(settings["escaped"], ["model", "prompts", "drafters"])
        self.assertEqual([row.get("escaped") for row in rows], [None, None, ["drafter"]])
        out, _ = outrider(*compare, "--drafters", "ngram", "--json", "-")
        self.assertEqual(json.loads(out)["settings"]["prompts"], settings["prompts"])
        out, _ = outrider(*compare, "--drafters", "ngram", "--stop", "\\x")
        self.assertEqual(len(out.decode().splitlines()), 3)

    def test_lines(self):
        generate = ("generate", "--model", self.model, "--threads", 1, "-n", 8)
        out, _ = outrider(*generate, "--prompts", self.prompts_file, "--json", "-")
        self.assertEqual([json.loads(line)["id"] for line in out.decode().splitlines()], ["ü0", "ü1"])
        outrider(*generate, "--prompt", b"caf\xe9", "--json", self.report)
        with open(self.report, encoding="utf-8") as file:
            self.assertEqual(json.load(file)["finish"], "length")

    def test_distilled_text_and_drafters(self):
        text, drafter = os.fsencode(self.path) + b"/t\xe9xt.jsonl", os.fsencode(self.path) + b"/dr\xe9fter"
        outrider("distill", "--model", self.model, "--threads", 1, "--prompts", self.prompts(70), "--output", text, "-n", 8)
        outrider("train", "--model", self.model, "--threads", 1, "--kind", "medusa", "--data", text, "--output", drafter,
                 "--held-out", 1, "--anchors", 64, "--draft-heads", 1, "--vocabulary", 32)
        with open(drafter + b"/config.json", encoding="utf-8") as file:
            self.assertIn("mod\\\\xE9l.gguf", file.read())
        outrider("generate", "--model", self.model, "--prompt", "a", "-n", 4, "--drafter", drafter)


class Inputs(Case):
    """Lines that nest deeper than any stack, and models that are no files."""

    def test_lines_nested_too_deep(self):
        decode = ("--model", MODEL, "--threads", 1, "-n", 2)
        for depth in (201, 500_000):
            deep = "[" * depth + "]" * depth
            message = f'{{"role": "user", "content": "a", "x": {deep}}}'
            for line in (f'{{"prompt": "a", "x": {deep}}}', f'{{"id": {deep}, "prompt": "a"}}', f'{{"messages": [{message}]}}',
                         f'{{"messages": [{{"role": "user", "content": "a"}}], "tools": {deep}}}', deep, "[" * depth):
                file = self.write("deep.jsonl", line + "\n")
                for command in (("generate", *decode, "--prompts", file),
                                ("compare", *decode, "--drafters", "ngram", "--prompts", file),
                                ("distill", *decode, "--prompts", file, "--output", self.path / "out.jsonl")):
                    self.fails(*command, words=["deep.jsonl:1", "levels deep"])
            chat = self.write("chat.jinja", "{{ messages[0].content }}")
            self.fails("tokenize", "--model", MODEL, "--chat", "--template-file", chat, stdin=f'{{"messages": [{message}]}}\n',
                       words=["line 1", "levels deep"])
            answer = f'{{"role": "assistant", "content": "b", "x": {deep}}}'
            text = self.write("text.jsonl", f'{{"messages": [{{"role": "user", "content": "a"}}, {answer}]}}\n')
            self.fails("train", "--model", MODEL, "--threads", 1, "--kind", "medusa", "--data", text, "--output",
                       self.path / "drafter", words=["text.jsonl", "levels deep"])
            before = f'{{"id": "a", "completion_ids": [], "x": {deep}}}\n'
            self.write("out.jsonl", before)
            self.fails("distill", *decode, "--prompts", self.prompts(1), "--output", self.path / "out.jsonl",
                       words=["out.jsonl:1", "levels deep"])
            self.assertEqual((self.path / "out.jsonl").read_text(), before)
            (self.path / "out.jsonl").unlink()

    def test_models_that_are_no_files(self):
        pipe = self.path / "pipe.gguf"
        os.mkfifo(pipe)
        for model in (pipe, "/dev/null", self.path):
            for command in (("generate", "--prompt", "a"), ("tokenize",), ("inspect",)):
                out, _ = outrider(*command, "--model", model, status=1)
                self.assertEqual(out, b"")
        self.fails("generate", "--model", MODEL, "--prompt", "a", "--drafter", f"lm:{pipe}", words=["pipe"])


class Threads(Case):
    def test_a_thread_that_cannot_be_started_is_an_error(self):
        def no_stack():  # that an address space could hold
            resource.setrlimit(resource.RLIMIT_STACK, (1 << 46, resource.RLIM_INFINITY))
        for arguments in (("generate", "--prompt", "a"), ("inspect", "--prompt", "a", "--drafter", "ngram")):
            out, error = outrider(*arguments, "--model", MODEL, "-n", 4, "--threads", 8, status=1, preexec=no_stack)
            self.assertEqual(out, b"")
            self.assertIn("1 of 8 threads", error)


if __name__ == "__main__":
    main()

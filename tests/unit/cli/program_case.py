"""The program as its users run it, on a tiny random model: TEST.py PROGRAM TINY_GGUF [unittest options]"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

PROGRAM, MODEL = sys.argv[1:3]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OUTRIDER_DRAFTERS": ""}


def outrider(*arguments, stdin="", status=0, preexec=None, env=None):
    """(standard output, standard error); `preexec` runs in the child before the program, `env` adds variables."""
    done = subprocess.run([PROGRAM, *map(os.fspath, map(as_argument, arguments))], input=stdin.encode(), capture_output=True,
                          env={**ENVIRONMENT, **(env or {})}, timeout=300, preexec_fn=preexec)
    error = done.stderr.decode(errors="backslashreplace")
    assert done.returncode == status, f"{arguments}: status {done.returncode}, expected {status}\n{error}"
    return done.stdout, error


def as_argument(value):
    return value if isinstance(value, (bytes, os.PathLike)) else str(value)


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = pathlib.Path(self.folder.name)

    def write(self, name, text):
        (self.path / name).write_text(text, encoding="utf-8")
        return self.path / name

    def prompts(self, count=4):
        return self.write("prompts.jsonl", "".join(
            json.dumps({"id": f"p{i}", "prompt": f"count {i} {i * 7 % 5} and {i}"}) + "\n" for i in range(count)))

    def fails(self, *arguments, words, stdin="", status=1):
        out, err = outrider(*arguments, stdin=stdin, status=status)
        self.assertEqual(out, b"", "an error goes to stderr alone")
        for word in words:
            self.assertIn(word, err)


def main():
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)

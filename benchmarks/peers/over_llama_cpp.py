#!/usr/bin/env python3
"""Outrider's drafters over llama.cpp (examples/06_llama_cpp) beside llama.cpp's own speculation, on one GGUF file.

    over_llama_cpp.py PROGRAM MODEL [--drafters ngram DIR DIR+ngram] [--prompts FILE] [--limit 8] [--tokens 96]
                      [--threads N] [--repeats 1] [--json FILE]

PROGRAM is the example. llama.cpp's own modes run through the wheel xllamacpp, in a process of its own. Both get the prompts as
llama.cpp's template writes them, decode greedily, and are timed from the first token on. Prompt by prompt, in turn.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import time

MODES = ("plain", "ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod", "ngram-cache")
LINE = re.compile(r"^(\S+) +([\d.]+) tokens a second, ([\d.]+) a pass \((\d+) tokens, (\d+) passes\)$", re.M)


def serve(arguments):
    """A child: one JSON line a prompt on standard input, one answer a line."""
    import xllamacpp
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.n_gpu_layers = arguments.model, 4096, 1, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = arguments.threads
    params.cache_prompt, params.cache_ram_mib, params.verbosity, params.port = False, 0, 0, 0
    if arguments.serve != "plain":
        name = "COMMON_SPECULATIVE_TYPE_" + arguments.serve.replace("-", "_").upper()
        params.speculative.types = [getattr(xllamacpp.common_speculative_type, name)]
    server = xllamacpp.Server(params)
    for line in sys.stdin:
        timings = server.handle_completions({"prompt": json.loads(line), "n_predict": arguments.tokens, "temperature": 0,
                                             "max_tokens": arguments.tokens, "cache_prompt": False, "stream": False})["timings"]
        print("ANSWER " + json.dumps({"tokens": timings["predicted_n"] - 1, "seconds": timings["predicted_ms"] * 1e-3}), flush=True)


class Peer:
    def __init__(self, arguments, mode):
        command = [sys.executable, __file__, arguments.program, arguments.model, "--serve", mode, "--threads",
                   str(arguments.threads), "--tokens", str(arguments.tokens)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def answer(self, prompt):
        self.process.stdin.write(json.dumps(f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n") + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("ANSWER "):
                return json.loads(line[7:])
        sys.exit(f"llama.cpp ended with status {self.process.wait()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--drafters", nargs="+", default=["ngram"])
    parser.add_argument("--prompts", type=pathlib.Path, default=pathlib.Path(__file__).parents[2] / "examples/prompts.jsonl")
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments)
    prompts = [json.loads(line)["prompt"] for line in arguments.prompts.read_text().splitlines() if line][:arguments.limit]
    sums = {}

    def count(arm, tokens, seconds, passes=None):
        entry = sums.setdefault(arm, {"tokens": 0, "seconds": 0.0, "passes": 0})
        entry["tokens"] += tokens
        entry["seconds"] += seconds
        entry["passes"] += passes or 0

    peers = {mode: Peer(arguments, mode) for mode in MODES}
    same = texts = 0
    for _ in range(arguments.repeats):
        for prompt in prompts:
            for mode, peer in peers.items():
                answer = peer.answer(prompt)
                count(f"llama.cpp {mode}", answer["tokens"], answer["seconds"])
            for drafter in arguments.drafters:
                out = subprocess.run([arguments.program, arguments.model, drafter, prompt, str(arguments.tokens)],
                                     capture_output=True, text=True, check=True).stdout
                for name, speed, _, tokens, passes in LINE.findall(out):
                    count(f"Outrider {pathlib.Path(name).name}", int(tokens), int(tokens) / float(speed), int(passes))
                texts += 1
                same += "the same without drafts" in out
    for peer in peers.values():
        peer.process.stdin.close()
        peer.process.wait()
    rows = {arm: {"tokens_per_second": entry["tokens"] / entry["seconds"],
                  "beta": entry["tokens"] / entry["passes"] if entry["passes"] else None} for arm, entry in sums.items()}
    for arm, row in rows.items():
        print(f"{arm:<40} {row['tokens_per_second']:7.1f} tokens a second" + (f", {row['beta']:.2f} a pass" if row["beta"] else ""))
    print(f"{same} of {texts} texts are those of plain decoding")
    if arguments.json:
        arguments.json.write_text(json.dumps({"settings": {"limit": arguments.limit, "tokens": arguments.tokens, "threads": arguments.threads,
                                                           "repeats": arguments.repeats, "date": time.strftime("%Y-%m-%d")},
                                              "rows": rows, "same": same, "texts": texts}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

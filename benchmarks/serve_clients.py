#!/usr/bin/env python3
"""Throughput, time to the first token and gaps of `outrider serve`, by the number of clients: plain beside drafted.

    serve_clients.py PROGRAM MODEL [--clients 1 2 4 8] [--drafters none ""] [--requests 12] [--tokens 64] [--repeats 2]
                     [--prompts FILE] [--page FILE]

Each client streams one chat after another until `requests` are done. The arms take turns; both servers keep no texts. Gaps are the
times between two pieces of a stream. Needs the package `openai`.
"""
import argparse
import json
import pathlib
import statistics
import sys
import threading
import time

from serve_load import Server


def stream_one(server, prompt, tokens):
    """(seconds to the first piece, gaps between pieces, tokens) of one chat."""
    start, moments, written = time.monotonic(), [], 0
    with server.client.chat.completions.create(model="model", messages=[{"role": "user", "content": prompt}], max_tokens=tokens,
                                               stream=True, stream_options={"include_usage": True}) as stream:
        for piece in stream:
            if piece.choices and piece.choices[0].delta.content:
                moments.append(time.monotonic())
            written = piece.usage.completion_tokens if piece.usage else written
    return moments[0] - start, [b - a for a, b in zip(moments, moments[1:])], written


def measure(server, clients, prompts, tokens):
    """Figures of one cell; what a client throws ends the program."""
    left, lock, results, errors = iter(prompts), threading.Lock(), [], []

    def work():
        try:
            while True:
                with lock:
                    prompt = next(left, None)
                if prompt is None:
                    return
                result = stream_one(server, prompt, tokens)
                with lock:
                    results.append(result)
        except Exception as error:  # a figure without it would be wrong
            errors.append(error)

    start = time.monotonic()
    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        sys.exit(f"{type(errors[0]).__name__}: {errors[0]}")
    return {"seconds": time.monotonic() - start, "tokens": sum(written for _, _, written in results),
            "first": [first for first, _, _ in results], "gaps": [gap for _, gaps, _ in results for gap in gaps]}


def row(clients, drafter, cells):
    gaps = sorted(gap for cell in cells for gap in cell["gaps"])
    first = sorted(moment for cell in cells for moment in cell["first"])
    speed = sum(cell["tokens"] for cell in cells) / sum(cell["seconds"] for cell in cells)
    late = gaps[min(len(gaps) - 1, int(0.95 * len(gaps)))]
    return (f"| {clients} | {drafter or 'shipped'} | {speed:.1f} | {1e3 * statistics.median(first):.0f} | {1e3 * first[-1]:.0f} | "
            f"{1e3 * statistics.median(gaps):.1f} | {1e3 * late:.1f} | {1e3 * gaps[-1]:.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--drafters", nargs="+", default=["none", ""], help="'': the one shipped for the model")
    parser.add_argument("--requests", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--prompts", type=pathlib.Path, default=pathlib.Path(__file__).parents[1] / "examples/prompts.jsonl")
    parser.add_argument("--page", type=pathlib.Path)
    arguments = parser.parse_args()
    prompts = [json.loads(line)["prompt"] for line in arguments.prompts.read_text().splitlines() if line]
    prompts = [prompts[i % len(prompts)] for i in range(arguments.requests)]
    servers = {drafter: Server(argparse.Namespace(program=arguments.program, model=arguments.model, memory=1024, nodes=0,
                                                  model_threads=0, drafter=drafter, keep=0)) for drafter in arguments.drafters}
    for server in servers.values():
        measure(server, 1, prompts[:1], arguments.tokens)
    cells = {}
    for clients in arguments.clients:
        for _ in range(arguments.repeats):
            for drafter, server in servers.items():
                cells.setdefault((clients, drafter), []).append(measure(server, clients, prompts, arguments.tokens))
    ended = [server.end() for server in servers.values()]
    lines = ["| clients | drafter | tokens a second | first token, median ms | first token, longest ms | gap, median ms | gap, 95 % ms "
             "| gap, longest ms |", "|---|---|---|---|---|---|---|---|"]
    lines += [row(clients, drafter, found) for (clients, drafter), found in cells.items()]
    lines += ["", f"{arguments.requests} chats of {arguments.tokens} tokens at most a cell, {arguments.repeats} times, "
                  f"{pathlib.Path(arguments.model).name}."]
    print("\n".join(lines))
    if arguments.page:
        arguments.page.write_text("# Serving, by the number of clients\n\nWritten by `benchmarks/serve_clients.py --page`. A gap is the time "
                                  "between two pieces of a stream; a piece\nholds what a round brought. [docs/serving.md]"
                                  "(../../docs/serving.md) says what follows.\n\n" + "\n".join(lines) + "\n")
    return 1 if any(ended) else 0


if __name__ == "__main__":
    sys.exit(main())

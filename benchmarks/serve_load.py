#!/usr/bin/env python3
"""Load on `outrider serve` by a real client: many threads, cancels, slow and vanishing clients, bad JSON, prompts that are too
long, little memory. Every text that is finished must be the one that the same request gets alone.

    serve_load.py PROGRAM MODEL [--requests 200] [--threads 16] [--memory 64] [--keep 0] [--seed 1] [--drafter NAME]
                  [--nodes N] [--model-threads N] [--json FILE]

Needs the package `openai`. Exit status 1 where a text differs, a request is lost, or the server does not end cleanly.
"""
import argparse
import collections
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import openai

WORDS = "sky river stone music winter bread letter garden engine island mirror paper number window story".split()


def request_of(index, seed):
    """What request `index` asks for; the same every time."""
    dice = random.Random(seed * 100003 + index)
    content = f"Write about {dice.choice(WORDS)} and {dice.choice(WORDS)} in a few sentences. " * dice.choice([1, 1, 1, 6])
    return {"messages": [{"role": "user", "content": content}], "max_tokens": dice.choice([8, 24, 48]),
            "temperature": dice.choice([0, 0, 0.8]), "seed": dice.randrange(1000)}


def kind_of(index, seed):
    """How its client behaves."""
    dice = random.Random(seed * 7919 + index)
    return dice.choices(["whole", "stream", "slow", "cancel", "vanish", "bad_json", "oversize"],
                        [40, 25, 5, 10, 8, 6, 6])[0]


class Server:
    def __init__(self, arguments):
        command = [arguments.program, "serve", "-m", arguments.model, "--port", "0", "--queue", "400", "--memory",
                   str(arguments.memory), "--name", "model", "--grace", "2", "--batch", "8", "--max-body", "1"]
        if arguments.nodes:
            command += ["--nodes", str(arguments.nodes)]
        if arguments.model_threads:
            command += ["--threads", str(arguments.model_threads)]
        if arguments.keep is not None:
            command += ["--keep", str(arguments.keep)]
        if arguments.drafter:
            command += ["--drafter", arguments.drafter]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found[1])
                break
        else:
            sys.exit("the server did not start")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        self.client = openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", max_retries=0, timeout=600)

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}

    def idle(self, seconds=60):
        """Whether nothing is decoded any more within this time."""
        for _ in range(int(seconds * 10)):
            now = self.metrics()
            if now["outrider_requests_active"] == 0 and now["outrider_requests_queued"] == 0:
                return True
            time.sleep(0.1)
        return False

    def memory(self):
        """Resident bytes."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) << 10

    def end(self):
        """The exit status after Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=60)

    def raw(self, body, read):
        """A connection by hand; reads `read` bytes of the answer and leaves."""
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.port), timeout=600) as connection:
            connection.sendall(head.encode() + body)
            return connection.recv(read) if read else b""


def text_of(answer):
    return answer.choices[0].message.content


def run_one(server, index, seed):
    """(how it ended, text or None)."""
    asked, kind = request_of(index, seed), kind_of(index, seed)
    create = server.client.chat.completions.create
    if kind == "whole":
        return "finished", text_of(create(model="model", **asked))
    if kind in ("stream", "slow", "cancel"):
        text = ""
        with create(model="model", stream=True, **asked) as stream:
            for number, piece in enumerate(stream):
                text += piece.choices[0].delta.content or "" if piece.choices else ""
                if kind == "slow":
                    time.sleep(0.05)
                if kind == "cancel" and number == 4:
                    return "cancelled", None
        return "finished", text
    if kind == "vanish":
        body = json.dumps({"model": "model", "stream": index % 2 == 0, **asked}).encode()
        server.raw(body, 1 if index % 2 == 0 else 0)
        return "vanished", None
    if kind == "bad_json":
        answer = server.raw(b'{"messages": [', 4096)
        return ("refused" if b" 400 " in answer else f"wrong answer {answer[:60]!r}"), None
    try:
        create(model="model", messages=[{"role": "user", "content": "word " * 20000}])
    except openai.APIStatusError as error:
        return ("refused" if error.status_code in (400, 413) else f"status {error.status_code}"), None
    return "an oversize prompt was taken", None


def load(server, arguments):
    """{index: (how it ended, text)}."""
    results, numbers, lock = {}, iter(range(arguments.requests)), threading.Lock()

    def work():
        while True:
            with lock:
                index = next(numbers, None)
            if index is None:
                return
            try:
                result = run_one(server, index, arguments.seed)
            except Exception as error:  # a lost request is what this looks for
                result = f"lost: {type(error).__name__}: {error}", None
            with lock:
                results[index] = result

    threads = [threading.Thread(target=work) for _ in range(arguments.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--memory", type=int, default=64, help="MiB of KV caches")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=int, help="MiB of texts that ended; the server's own choice unless given")
    parser.add_argument("--drafter", default="")
    parser.add_argument("--nodes", type=int, default=0, help="of every draft tree; 0: as many as pay")
    parser.add_argument("--model-threads", type=int, default=0)
    parser.add_argument("--json", default="")
    arguments = parser.parse_args()
    server = Server(arguments)
    start = time.monotonic()
    results = load(server, arguments)
    seconds = time.monotonic() - start
    failures = [f"request {i} ({kind_of(i, arguments.seed)}): {how}" for i, (how, _) in sorted(results.items())
                if how not in ("finished", "cancelled", "vanished", "refused")]
    if not server.idle():
        failures.append("texts of clients that left are still decoded")
    after_load, resident = server.metrics(), server.memory()
    finished = {i: text for i, (how, text) in results.items() if how == "finished"}
    for i, text in sorted(finished.items()):
        alone = text_of(server.client.chat.completions.create(model="model", **request_of(i, arguments.seed)))
        if alone != text:
            failures.append(f"request {i} ({kind_of(i, arguments.seed)}): {text!r} instead of {alone!r}")
    status = server.end()
    if status != 0:
        failures.append(f"the server ended with status {status}")
    report = {"processors": os.cpu_count(), "settings": vars(arguments), "seconds": round(seconds, 1),
              "ends": collections.Counter(how for how, _ in results.values()), "compared": len(finished),
              "tokens_per_second": round(after_load["outrider_tokens_total"] / seconds, 1),
              "tokens_per_pass": round(after_load["outrider_tokens_total"] / max(after_load["outrider_passes_total"], 1), 2),
              "resident_mib": resident >> 20, "failures": failures}
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.json:
        pathlib.Path(arguments.json).write_text(text + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

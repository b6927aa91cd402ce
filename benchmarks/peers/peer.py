"""What the peers' processes share: the job on standard input, times and memory as JSON lines into a file."""
import json
import sys
import time

now = time.perf_counter


def peak_megabytes():
    """Peak resident memory of this process (VmHWM)."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("/proc/self/status has no VmHWM")


def run(load, answer):
    """`load(job)` makes the peer; `answer(peer, ids, most)` says {text, tokens, first_s, decode_tokens,
    decode_s}: tokens of the answer, seconds up to the first pass's, tokens after those and their seconds. One answer is thrown away before the timed ones."""
    job = json.load(sys.stdin)
    begin = now()
    peer = load(job)
    load_s = now() - begin
    answer(peer, job["prompts"][0]["ids"], 8)
    answers = []
    for prompt in job["prompts"]:
        row = answer(peer, prompt["ids"], job["max_tokens"])
        answers.append({"id": prompt["id"], "prompt_tokens": len(prompt["ids"]), **row})
    with open(job["output"], "w", encoding="utf-8") as out:
        json.dump({"load_s": load_s, "peak_mb": peak_megabytes(), "answers": answers}, out)

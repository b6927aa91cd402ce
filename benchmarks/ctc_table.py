#!/usr/bin/env python3
"""Prints the table of benchmarks/results/ctc_search.md from the benchmark's JSON.

    build/bench/ctc_search --benchmark_repetitions=9 --benchmark_report_aggregates_only=true \\
        --benchmark_format=json | python3 benchmarks/ctc_table.py [REGULAR EXPRESSION]
"""
import json
import re
import sys

wanted = re.compile(sys.argv[1] if len(sys.argv) > 1 else "")

data = json.load(sys.stdin)
print("| what | arguments | microseconds (median) | spread of repetitions | counters |")
print("|---|---|---|---|---|")
spread = {b["run_name"]: b["cpu_time"] for b in data["benchmarks"] if b.get("aggregate_name") == "cv"}
for b in data["benchmarks"]:
    if b.get("aggregate_name") != "median" or not wanted.search(b["run_name"]):
        continue
    name, *arguments = b["run_name"].split("/")
    arguments = ", ".join(a.replace(":", " = ") for a in arguments)
    counters = ", ".join(f"{key} {b[key]:.3g}" for key in ("expanded", "plain_mass", "true_mass") if key in b)
    print(f"| {name} | {arguments} | {b['cpu_time']:.1f} | {100 * spread[b['run_name']]:.0f} % | {counters} |")
context = data["context"]
print(f"\n{context['num_cpus']} cores at {context['mhz_per_cpu']} MHz, load average {context['load_avg'][0]:.1f} at the start; "
      "CPU time of one core.")

#!/usr/bin/env python3
"""Writes the README's figures from a report of `outrider compare --json`.

    readme_table.py docs/figures/quickstart.json            writes the table between the README's two marks
    readme_table.py docs/figures/quickstart.json --check    exit 1 if the README holds another one
"""
import argparse
import json
import pathlib
import re
import sys

MARK = re.compile(r"(<!-- figures -->\n).*?(<!-- /figures -->)", re.S)


def name_of(drafter):
    """A drafter as readers know it: folders by their last part."""
    return "+".join(part.rstrip("/").split("/")[-1] for part in drafter.split("+"))


def table(report):
    settings = report["settings"]
    lines = ["| drafter | tokens per target pass (beta) | nodes a round | tokens/s | speed-up (gamma), 95 % interval | same text |",
             "|---|---|---|---|---|---|"]
    for row in report["rows"]:
        same = "yes" if row["identical"] else f"{len(row['differences'])} of {settings['prompt_count']} differ"
        nodes = row["drafted"] / row["rounds"]
        lines.append(f"| {name_of(row['drafter'])} | {row['beta']:.2f} | {nodes:.1f} | {row['tokens_per_second']:.0f} | "
                     f"{row['gamma']:.2f} ({row['gamma_low']:.2f} - {row['gamma_high']:.2f}) | {same} |")
    size = "as many nodes as pay" if settings["nodes"] == "auto" else f"{settings['nodes']} nodes"
    lines.append("")
    lines.append(f"{pathlib.Path(settings['model']).name}, weights {settings['weights']}, {settings['prompt_count']} prompts "
                 f"of up to {settings['max_tokens']} tokens, {size}, batch {settings['batch']}, "
                 f"temperature {settings['temperature']:g}. Gamma is the ratio of decoding times within one run.")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=pathlib.Path)
    parser.add_argument("--readme", type=pathlib.Path, default=pathlib.Path(__file__).parent.parent / "README.md")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    old = arguments.readme.read_text(encoding="utf-8")
    if not MARK.search(old):
        sys.exit(f"{arguments.readme}: no marks <!-- figures --> and <!-- /figures -->")
    figures = table(json.loads(arguments.report.read_text(encoding="utf-8")))
    new = MARK.sub(lambda match: match[1] + figures + match[2], old)
    if arguments.check:
        return 0 if new == old else f"{arguments.readme} does not hold the figures of {arguments.report}; write them anew"
    arguments.readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

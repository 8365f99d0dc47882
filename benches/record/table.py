#!/usr/bin/env python3
"""Prints the last medians of a group of benches, as criterion keeps them: nanoseconds for each thing that
the bench counts (operations, pairs).

    benches/record/table.py free_index [TARGET_DIRECTORY]
"""

import json
import os
import pathlib
import sys


def rows(group, target):
    for file in sorted(target.glob("criterion/**/new/benchmark.json")):
        bench = json.loads(file.read_text(encoding="utf-8"))
        if bench["group_id"] != group:
            continue
        estimates = json.loads((file.parent / "estimates.json").read_text(encoding="utf-8"))
        count = (bench["throughput"] or {}).get("Elements", 1)
        yield bench["full_id"].split("/")[1:], estimates["median"]["point_estimate"] / count


def place(name):
    """The present design first, then as the names go."""
    return name != "fragsim", name


def number(word):
    return (0, int(word), "") if word.isdigit() else (1, 0, word)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    target = sys.argv[2] if len(sys.argv) == 3 else os.environ.get("CARGO_TARGET_DIR", "target")
    found = list(rows(sys.argv[1], pathlib.Path(target)))
    if not found:
        sys.exit(f"nothing of {sys.argv[1]} in {target}: run the bench first")
    # The contestants side by side.
    at = {"free_index": 1, "neighbours": 0}.get(sys.argv[1], 0)
    names = sorted({words[at] for words, _ in found if len(words) > 1}, key=place)
    cases = {}
    for words, time in sorted(found, key=lambda row: [number(word) for word in row[0]]):
        if len(words) == 1:
            print(f"{words[0]:28}{time:18.1f}")
        else:
            cases.setdefault("/".join(words[:at] + words[at + 1:]), {})[words[at]] = time
    print(f"{'ns':28}" + "".join(f"{name:>18}" for name in names))
    for case, times in cases.items():
        cells = (f"{times[name]:18.1f}" if name in times else f"{'':18}" for name in names)
        print(f"{case:28}" + "".join(cells).rstrip())


if __name__ == "__main__":
    main()

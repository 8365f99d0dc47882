#!/usr/bin/env python3
"""Takes from the folder of recorded scenarios what the lessons cite.

    tests/lessons/scenarios.py FOLDER > traces/lessons/scenarios.json

FOLDER holds one NAME.json a run and RESULTS.md with the smallest capacities. Which runs are taken is
what the lessons name: every `real.FIGURE(NAME)` in traces/lessons/*.md.
"""

import json
import pathlib
import re
import sys

LESSONS = pathlib.Path(__file__).resolve().parents[2] / "traces" / "lessons"
MIB = 1 << 20


def named():
    names = set()
    for path in sorted(LESSONS.glob("*.md")):
        names.update(re.findall(r"real\.\w+\(([\w.]+)\)", path.read_text()))
    return sorted(names)


def smallest(folder):
    """Rows of the table of smallest capacities: run, survives at, fails at (MiB)."""
    text = (folder / "RESULTS.md").read_text()
    table = text.split("## Smallest capacities", 1)[1]
    rows = re.findall(r"^\| (\w+__\w+) \| (\d+) \| (\d+) \|", table, re.M)
    return {name: int(survives) * MIB for name, survives, _ in rows}


def run(folder, name, least):
    run = json.loads((folder / f"{name}.json").read_text())
    steps = [step for step in run.get("steps") or [] if "end_allocated" in step]
    growth = steps[-1]["end_allocated"] - steps[-2]["end_allocated"] if len(steps) > 1 else None
    peak = run["peak"]
    params = dict(run["params"])
    if run.get("conf"):
        params["conf"] = run["conf"]
    second = run.get("stats_device1") or {}
    return {
        "params": ", ".join(f"{key}={value}" for key, value in params.items()),
        "capacity": run["total"],
        "requested": peak["requested"],
        "allocated": peak["allocated"],
        "active": peak["active"],
        "reserved": peak["reserved"],
        "weights": (run.get("static") or {}).get("weights"),
        "growth": growth if growth is None or growth >= 0 else 0,
        "second_allocated": second.get("allocated_bytes.all.peak"),
        "retries": run["stats"]["num_alloc_retries"],
        "cuda_malloc": run["actions"].get("segment_alloc", 0),
        "oom": bool(run.get("oom")),
        "smallest": least.get(name),
    }


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    least = smallest(folder)
    runs = {name: run(folder, name, least) for name in named()}
    lines = [f"{json.dumps(name)}: {json.dumps(runs[name])}" for name in runs]
    print("{\n" + ",\n".join(lines) + "\n}")


main()

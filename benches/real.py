#!/usr/bin/env python3
"""Measures fragsim beside PyTorch's real allocator, in one run, and prints a table of ratios.

    benches/real.py [--rounds N] [--pairs N] [--with COMMAND] [--only PART]...

The real allocator is that of PyTorch 2.11 on a fake device, by the rig in ../shared/oracle (or the
folder that ORACLE names), history off, which is its fastest mode. Both sides replay the same operations
from memory, on a device where nothing is short; only the replay is timed. They run in turn, N (5)
rounds; a figure is the median of the rounds, and a ratio that of the medians, with the least and the
most of the rounds behind it. Without the rig, what needs it is left out.

--with puts COMMAND before every command that is measured, such as `taskset -c 1`.
--only measures a part alone: pairs, big_1m, growth, load, sweep.
"""

import argparse
import datetime
import gzip
import json
import os
import pathlib
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import load_peer

PACKAGE = pathlib.Path(__file__).resolve().parent.parent
SHARED = pathlib.Path(os.environ.get("FRAGSIM_SHARED", PACKAGE / "../shared"))
ORACLE = pathlib.Path(os.environ.get("ORACLE", SHARED / "oracle"))
TAG = "t211"
BIG = SHARED / "data/recorded/big_1m.pickle.gz"
VARLEN = PACKAGE / "traces/recorded/varlen_oom.pickle.gz"
PARTS = ["pairs", "big_1m", "growth", "load", "sweep"]
CONFS = {"default": "", "expandable": "expandable_segments:True"}
# The sizes of the rig by its own words, and the ratio that is aimed at.
PAIRS = {
    ("small", 1000): ("small 512B-1MiB", 10),
    ("large", 1000): ("large 1-64MiB", 10),
    ("mixed", 1000): ("mixed 512B-64MiB", 10),
    ("small", 100_000): ("small 512B-1MiB", 15),
    ("large", 100_000): ("large 1-64MiB", None),
    ("mixed", 100_000): ("mixed 512B-64MiB", 15),
}
# As `device` in benches/common/mod.rs.
TOTAL = "16T"


def note(text):
    print(text, file=sys.stderr, flush=True)


def built():
    """Builds the program and the driver of the benches; where they lie, by their names."""
    command = ["cargo", "bench", "--bench", "hot", "--no-run", "--message-format=json"]
    done = subprocess.run(command, cwd=PACKAGE, stdout=subprocess.PIPE, check=False, text=True)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}: exit status {done.returncode}")
    said = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["target"]["name"]: line["executable"] for line in said if line.get("executable")}


class Sides:
    """How either side is asked."""

    def __init__(self, wrap, pairs, hot):
        self.wrap, self.pairs, self.hot = shlex.split(wrap), pairs, hot
        self.env = {key: value for key, value in os.environ.items()
                    if not key.startswith(("PYTORCH_", "FAKECUDA_"))}

    def lines(self, command, conf="", until=None):
        """What a command prints, as JSON, up to the line for which `until` holds."""
        env = {**self.env, "FAKECUDA_TOTAL": TOTAL, "PYTORCH_CUDA_ALLOC_CONF": conf}
        if not conf:
            del env["PYTORCH_CUDA_ALLOC_CONF"]
        with subprocess.Popen([*self.wrap, *command], env=env, stdout=subprocess.PIPE,
                              text=True) as process:
            lines = []
            for text in process.stdout:
                lines.append(json.loads(text))
                if until and until(lines[-1]):
                    # It ends when it finds nobody to print the next line to.
                    return lines
        if process.returncode != 0:
            sys.exit(f"{shlex.join(command)}: exit status {process.returncode}")
        return lines

    def ours(self, program, conf, watch="bare"):
        """Nanoseconds an operation of one of our programs: the median of three runs."""
        line, = self.lines(
            [self.hot, "time", str(program), conf, watch, "3", str(self.pairs)])
        return statistics.median(line["s"]) / line["ops"] * 1e9

    def real(self, args, conf, until=None):
        lines = self.lines([str(ORACLE / "driver/oracle.sh"), TAG, "bench", *args], conf, until)
        return [line for line in lines if line["history"] == "off"]

    def real_pairs(self, conf):
        """Nanoseconds an operation, for each of the rig's settings."""
        def is_last(line):
            return line["live"] == 100_000 and line["sizes"] == PAIRS["mixed", 100_000][0]
        lines = self.real([str(self.pairs)], conf, is_last)
        return {(line["sizes"], line["live"]): 5e8 / line["pairs_per_s"] for line in lines}

    def real_replay(self, script, conf):
        lines = self.real(["replay", str(script)], conf)
        failed = [line["ooms"] for line in lines if line["ooms"]]
        if failed:
            sys.exit(f"the real allocator refused {failed[0]} requests: the device is too small")
        return statistics.median(1e9 / line["ops_per_s"] for line in lines)


class Table:
    """Figures by what they are of; rows of two of them."""

    def __init__(self):
        self.figures, self.rows = {}, []

    def add(self, key, value):
        self.figures.setdefault(key, []).append(value)

    def row(self, name, over, under, unit="ns", least=None, most=None):
        """The ratio of two figures, and what it should be: at least so much faster, or at most so
        much dearer."""
        if (name, over, under, unit, least, most) not in self.rows:
            self.rows.append((name, over, under, unit, least, most))

    def text(self):
        heads = [("", "peer", "fragsim", "faster"), ("", "with", "without", "ratio")]
        for head, is_cost in zip(heads, [False, True]):
            rows = [row for row in self.rows if (row[-1] is not None) == is_cost]
            if rows:
                yield f"{head[0]:40}{head[1]:>11}{head[2]:>11}{head[3]:>9}{'rounds':>16}   aim"
                yield from (self.line(*row) for row in rows)
                yield ""

    def line(self, name, over, under, unit, least, most):
        a, b = self.figures[over], self.figures[under]
        ratios = sorted(x / y for x, y in zip(a, b))
        ratio = statistics.median(a) / statistics.median(b)
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        aim = ""
        if least is not None:
            aim = f"at least {least:g}: {'met' if ratio >= least else 'MISSED'}"
        if most is not None:
            aim = f"at most {most:g}: {'met' if ratio <= most else 'MISSED'}"
        this, that = (f"{statistics.median(x):.4g} {unit}" for x in (a, b))
        return f"{name:40}{this:>11}{that:>11}{ratio:9.2f}{spread:>16}   {aim}".rstrip()


def measure_pairs(sides, table, has_rig):
    for title, conf in CONFS.items():
        real = sides.real_pairs(conf) if has_rig else {}
        for (sizes, live), (words, least) in PAIRS.items():
            program = f"{sizes}/{live}"
            ours = sides.ours(program, conf)
            if has_rig:
                table.add((program, title, "real"), real[words, live])
                table.add((program, title), ours)
                table.row(f"pairs {program} {title}", (program, title, "real"), (program, title),
                          least=least)


def measure_big(sides, table, has_rig, script):
    for title, conf in CONFS.items():
        if has_rig:
            table.add(("big_1m", title, "real"), sides.real_replay(script, conf))
        for watch in ["bare", "stats", "record", "fresh"]:
            table.add(("big_1m", title, watch), sides.ours(BIG, conf, watch))
        if has_rig:
            table.row(f"big_1m {title}", ("big_1m", title, "real"), ("big_1m", title, "bare"),
                      least=10)
        for watch, words, most in [("stats", "statistics", 1.3), ("record", "record", 2),
                                   ("fresh", "record, new memory", 2)]:
            table.row(f"big_1m {title}, {words}", ("big_1m", title, watch),
                      ("big_1m", title, "bare"), most=most)


def measure_growth(sides, table):
    for title, conf in CONFS.items():
        for sizes in ["small", "mixed"]:
            for live in [1000, 1_000_000]:
                table.add((sizes, live, title, "growth"), sides.ours(f"{sizes}/{live}", conf))
            table.row(f"{sizes} {title}, 1M blocks, not 1k", (sizes, 1_000_000, title, "growth"),
                      (sizes, 1000, title, "growth"), most=3)


def measure_load(sides, table, fragsim, pickle, packed):
    def load_s(path):
        replayed, = sides.lines([fragsim, "replay", path, "--repeat", "1", "--format", "json"])
        return replayed["timing"]["load_s"]
    table.add("pickle.load", sides.lines([sys.executable, "-c", load_peer.PYTHON, pickle])[0])
    table.add("load", load_s(pickle))
    table.add("load packed", load_s(packed))
    table.row("load big_1m.pickle", "pickle.load", "load", "s", least=20)
    table.row("load it packed, to unpacked", "load", "load packed", "s", least=5)


def measure_sweep(sides, table, fragsim):
    for threads in [2, 1]:
        command = [fragsim, "sweep", str(VARLEN), "--capacity-grid", "8192MiB..24176MiB/16MiB",
                   "--threads", str(threads), "--format", "jsonl"]
        with tempfile.TemporaryFile() as out:
            started = time.perf_counter()
            subprocess.run([*sides.wrap, *command], stdout=out, stderr=subprocess.DEVNULL, check=True)
            table.add(("sweep", threads), time.perf_counter() - started)
            out.seek(0)
            rows = sum(1 for _ in out)
        if rows != 1000:
            sys.exit(f"{shlex.join(command)}: {rows} rows instead of 1000")
    table.row("1000 replays of varlen, 2 threads", ("sweep", 2), ("sweep", 1), "s", most=0.55)


def heading(rounds, pairs):
    def said(*command):
        return subprocess.run(command, cwd=PACKAGE, stdout=subprocess.PIPE, text=True,
                              check=True).stdout.strip()
    cpu = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            models = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        cpu = models[0] if models else cpu
    # The commit that the measured code is of; what else was committed since does not matter.
    commit = said("git", "log", "-1", "--format=%h", "--", "src")
    changed = ", changed" if said("git", "status", "--porcelain", "--", "src") else ""
    yield f"date    {datetime.date.today()}"
    yield f"cpu     {cpu}, {os.cpu_count()} cores"
    yield f"rustc   {said('rustc', '--version')}"
    yield f"commit  {commit}{changed}"
    yield f"rounds  {rounds}, of {pairs} pairs; times are per operation, or as said"


def parts_of(args):
    """What can be measured here."""
    parts = set(args.only or PARTS)
    has_rig = (ORACLE / f"build/{TAG}/bench").is_file()
    if not has_rig:
        note(f"the rig is not built in {ORACLE}: nothing is compared with the real allocator.\n"
             f"Copy ../shared/oracle to a folder that can be written, run "
             f"`./rebuild.sh level1 {TAG}` there, and name the folder in ORACLE.")
        parts.discard("pairs")
    if not BIG.is_file() and parts & {"big_1m", "load"}:
        note(f"{BIG} is absent: big_1m and load are left out")
        parts -= {"big_1m", "load"}
    return parts, has_rig


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument("--with", dest="wrap", default="")
    parser.add_argument("--only", action="append", choices=PARTS)
    args = parser.parse_args()
    parts, has_rig = parts_of(args)
    # Of what is built now, whatever changes while it runs.
    head = list(heading(args.rounds, args.pairs))
    programs = built()
    fragsim = programs["fragsim"]
    sides, table = Sides(args.wrap, args.pairs, programs["hot"]), Table()
    if "sweep" in parts and subprocess.run([fragsim, "sweep", "--help"], capture_output=True,
                                           check=False).returncode != 0:
        note("this fragsim has no sweep: it is left out")
        parts.discard("sweep")
    with tempfile.TemporaryDirectory() as folder:
        script, pickle, packed = (os.path.join(folder, name) for name in ("ops", "pickle", "packed"))
        if "big_1m" in parts and has_rig:
            with open(script, "wb") as file:
                subprocess.run([sides.hot, "ops", BIG], stdout=file, check=True)
        if "load" in parts:
            with gzip.open(BIG) as source, open(pickle, "wb") as file:
                shutil.copyfileobj(source, file)
            subprocess.run([fragsim, "pack", pickle, "-o", packed], check=True,
                           stdout=subprocess.DEVNULL)
        for number in range(args.rounds):
            note(f"round {number + 1} of {args.rounds}")
            if "big_1m" in parts:
                measure_big(sides, table, has_rig, script)
            if "pairs" in parts:
                measure_pairs(sides, table, has_rig)
            if "growth" in parts:
                measure_growth(sides, table)
            if "load" in parts:
                measure_load(sides, table, fragsim, pickle, packed)
            if "sweep" in parts:
                measure_sweep(sides, table, fragsim)
    print("\n".join([*head, "", *table.text()]).rstrip())


if __name__ == "__main__":
    main()

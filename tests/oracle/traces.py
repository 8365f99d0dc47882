#!/usr/bin/env python3
"""Run traces live on the real allocator.

    traces.py --oracle DIR --tag t211 --conf '' --conf expandable_segments:True --out OUTDIR A.jsonl ...

DIR is a built oracle folder (the one that holds golden/gen.py and driver/oracle.sh). Each trace is a
JSON-lines file, as `fragsim synth ... -o A.jsonl` writes it. Every trace is run under every setting on
every release named (--tag and --conf can be given again); the answers have the format of the golden
cases and go to OUTDIR/TAG/NAME_N.jsonl.gz, N being the number of the setting.

A request that the real allocator refuses is in the case; what the trace does with its result later is
left out. Exit status 1 if a case could not be made.
"""
import argparse
import gzip
import json
import os
import sys

from fresh import load_gen


class Unusable(Exception):
    """The trace holds something that the driver has no word for."""


def pool(p):
    """The number by which the driver knows a private pool."""
    if p[0] != 0:
        raise Unusable(f"pool {p}: the driver makes pools (0, P) only")
    return p[1]


def words(line):
    """One line of a trace in the driver's words."""
    op = line["op"]
    if op == "alloc":
        if line.get("pool", [0, 0]) != [0, 0]:
            raise Unusable("an allocation that names its pool: only programs can be run, not recordings")
        return "a", line["id"] + 1, line["size"], line.get("stream", 0)
    if op == "free":
        if line.get("pending"):
            raise Unusable("a free that a recording saw pending")
        return "f", line["id"] + 1
    if op == "record_stream":
        return "rs", line["id"] + 1, line["stream"]
    if op == "empty_cache":
        return ("empty_cache",) if line.get("pool") is None else ("empty_cache", pool(line["pool"]))
    if op == "set_fraction":
        return "fraction", line["fraction"]
    if op == "settings":
        return "set", line["text"]
    if op in ("pool_create", "pool_end", "pool_release"):
        return op, pool(line["pool"])
    if op == "pool_begin":
        stream = line.get("stream")
        return ("pool_begin", pool(line["pool"])) if stream is None else ("pool_begin", pool(line["pool"]), stream)
    if op in ("capture_begin", "capture_end"):
        return op, line["stream"]
    if op == "complete":
        return "complete", "all" if line.get("stream") is None else line["stream"]
    raise Unusable(f"operation {op!r}")


def read(path):
    """Number of streams, and the operations."""
    with (gzip.open if path.endswith(".gz") else open)(path, "rt") as fh:
        head = json.loads(next(fh))
        if head.get("start"):
            raise Unusable("it does not start from an empty device")
        return max(1, len(head.get("streams", [0]))), [words(json.loads(line)) for line in fh]


def run(gen, tag, name, conf, cap, streams, ops):
    """One trace under one setting: the lines of a golden case."""
    env = {"FAKECUDA_TOTAL": str(cap), "FAKECUDA_RESERVED": "0", "FAKECUDA_ADDR": "bump",
           "FAKECUDA_EVENTS": "ready", "FAKECUDA_SEED": "0"}
    if conf:
        env["PYTORCH_CUDA_ALLOC_CONF"] = conf
    o = gen.Oracle(tag, env, streams)
    if "streams" not in o.head:
        o.p.stdin.close()
        o.p.wait()
        raise Unusable(o.head.get("init_error", "the release refuses the setting"))
    head = dict(case=name, seed=0, conf=conf, env=env, **o.head, unordered=[])
    recs, failed = [], set()
    for op in ops:
        if op[0] in ("f", "rs") and op[1] in failed:
            continue
        answer = o.op(*op)
        answer["op"] = [gen.num(str(word)) for word in op]
        if op[0] == "a" and "r" not in answer:
            failed.add(op[1])
        recs.append(answer)
    return head, recs, o.close()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--oracle", required=True, metavar="DIR", help="built oracle folder")
    ap.add_argument("--tag", action="append", required=True, help="release: t201 (2.1.2) ... t215 (2.15.0)")
    ap.add_argument("--conf", action="append", metavar="TEXT", help="PYTORCH_CUDA_ALLOC_CONF (default: none)")
    ap.add_argument("--capacity", type=int, default=16 << 30, metavar="BYTES", help="of the device (default 16 GiB)")
    ap.add_argument("--out", required=True, metavar="OUTDIR", help="files go to OUTDIR/TAG")
    ap.add_argument("traces", nargs="+", metavar="TRACE.jsonl")
    a = ap.parse_args()

    gen = load_gen(a.oracle)
    bad = 0
    for path in a.traces:
        name = os.path.basename(path).removesuffix(".gz").removesuffix(".jsonl")
        for tag in a.tag:
            os.makedirs(os.path.join(a.out, tag), exist_ok=True)
            for n, conf in enumerate(a.conf or [""]):
                try:
                    head, recs, fin = run(gen, tag, name, conf, a.capacity, *read(path))
                except (Unusable, RuntimeError) as error:
                    bad += 1
                    print(tag, name, conf or "default", "FAILED", error, flush=True)
                    continue
                gen.dump(os.path.join(a.out, tag, f"{name}_{n}.jsonl.gz"), head, recs, fin)
                print(tag, name, conf or "default", "ops", len(recs), "oom", sum("oom" in r for r in recs),
                      "match", fin["trace_match"], flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Make fresh golden cases: random scripts, run live on the real allocator.

    fresh.py --oracle DIR --tag t215 --seed 4000000 --count 20 --out OUTDIR

DIR is a built oracle folder (the one that holds golden/gen.py and driver/oracle.sh).
Each case takes one configuration family of the recorded cases (their options, streams, event
mode and script features) and gives it a new seed, length, capacity and address policy, so that
a simulator can be checked on scripts that nobody has looked at before. The files have the format
of the recorded cases and go to OUTDIR/TAG/NAME_SEED.jsonl.gz.

Everything random comes from the seed and the tag: the same command makes the same files,
except for the events of operations that have no fixed order (`unordered` in the first line).
Case number k has the seed SEED + k; a case that can't be used is reported, takes its seed with
it, and another one is made in its place: one whose configuration the release refuses, or whose results
change from run to run of the real allocator. Operations that the release's API lacks are left out of
the script (`dropped` in the first line).
"""
import argparse
import importlib.util
import os
import random
import sys

ADDRS = ["bump", "firstfit", "down", "rand"]  # address policies of the fake device


class Refused(Exception):
    """The release doesn't take the configuration."""


def load_gen(oracle):
    """Import DIR/golden/gen.py; it finds the driver relative to its own place."""
    path = os.path.join(os.path.abspath(oracle), "golden", "gen.py")
    spec = importlib.util.spec_from_file_location("oracle_gen", path)
    gen = importlib.util.module_from_spec(spec)
    dont_write, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # the folder may be read-only
    spec.loader.exec_module(gen)
    sys.dont_write_bytecode = dont_write
    return gen


def families(gen):
    """The generator's configuration families, as (name, Case): dev_split64, extra_throw_oom, ..."""
    out = []
    for which in ("dev", "extra"):
        for c in gen.cases(which):
            out.append((which + "_" + c.name.split("_", 1)[1], c))
    return out


def check_conf(gen, tag, case):
    """Raise Refused where the release refuses the case's configuration (its first line says so)."""
    o = gen.Oracle(tag, case.env(), case.streams)
    if "streams" not in o.head:
        o.p.stdin.close()
        o.p.wait()
        raise Refused(o.head.get("init_error", "no reason given"))
    o.close()


def without_missing(gen, tag, head, recs, fin):
    """Leave out the operations that this release's API lacks (the driver answers those with an error
    "oracle: ..."), and run what remains again. That may bring up new ones (a free of an allocation
    that now fails), so repeat until none is left. Returns the new case and {index: name} of what was
    left out, with the indices of the script as first made."""
    left = [(x["i"], x) for x in recs]
    dropped = {}
    while True:
        bad = {k: x["op"][0] for k, x in left if x.get("err", "").startswith("oracle: ")}
        if not bad:
            return head, [x for _, x in left], fin, dropped
        dropped.update(bad)
        o = gen.Oracle(tag, head["env"], len(head["streams"]))
        again = []
        for k, x in left:
            if k not in bad:
                a = o.op(*x["op"])
                a["op"] = x["op"]  # with numbers, as in the recorded cases
                again.append((k, a))
        fin = o.close()
        left = again
        head = {**{k: head[k] for k in ("case", "seed", "conf", "env")}, **o.head}


def make_case(gen, tag, case, checks):
    """Run one case; the head says which operations have no fixed order and which were left out.
    Where the allocator goes by host pointers a few reruns can agree by luck, so they are done `checks` times."""
    check_conf(gen, tag, case)
    head, recs, fin = case.run(tag)
    head, recs, fin, dropped = without_missing(gen, tag, head, recs, fin)
    loose = set()
    for _ in range(checks):
        loose |= set(gen.unordered(tag, head, recs, fin))  # raises where results vary from run to run
    head["unordered"] = sorted(loose)
    if dropped:
        head["dropped"] = dropped
    return head, recs, fin


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--oracle", required=True, metavar="DIR", help="built oracle folder")
    ap.add_argument("--tag", required=True, help="release: t201 (2.1.2) ... t215 (2.15.0)")
    ap.add_argument("--seed", required=True, type=int, help="seed of the first case")
    ap.add_argument("--count", type=int, default=20, help="cases to write (default 20)")
    ap.add_argument("--out", required=True, metavar="OUTDIR", help="files go to OUTDIR/TAG")
    ap.add_argument("--min-ops", type=int, default=300, help="shortest script, in steps (default 300)")
    ap.add_argument("--max-ops", type=int, default=2500, help="longest script, in steps (default 2500)")
    ap.add_argument("--checks", type=int, default=3, metavar="N",
                    help="rounds of reruns that look for order that isn't fixed (default 3; recorded cases: 1)")
    ap.add_argument("--only", default="", metavar="TEXT", help="only families whose name contains TEXT")
    a = ap.parse_args()

    gen = load_gen(a.oracle)
    fams = [f for f in families(gen) if a.only in f[0]]
    if not fams:
        ap.error(f"no family has {a.only!r} in its name")
    caps = sorted({c.cap for _, c in families(gen)})
    out = os.path.join(a.out, a.tag)
    os.makedirs(out, exist_ok=True)

    rnd = random.Random(f"{a.tag}:{a.seed}")
    todo = []       # families still to come in this round: every one has its turn, in random order
    written = skipped = failed = 0
    seed = a.seed
    tries = 5 * a.count + 2 * len(fams)  # an end where (nearly) every family is refused
    while written < a.count and tries > 0 and fams:
        tries -= 1
        if not todo:
            todo = rnd.sample(fams, len(fams))
        fam = todo.pop()
        name, c = fam
        case = gen.Case(name, seed, c.conf, rnd.randint(a.min_ops, a.max_ops), rnd.choice(caps), streams=c.streams,
                        ctx=rnd.choice([0, 0, 32 * gen.MB]), addr=rnd.choice(ADDRS), events=c.events, opt=c.opt)
        label = f"{a.tag} {name}_{seed}"
        seed += 1
        try:
            head, recs, fin = make_case(gen, a.tag, case, a.checks)
        except Refused as e:
            fams.remove(fam)  # it would be refused again
            skipped += 1
            print(label, "skipped: configuration refused:", " ".join(str(e).split())[:120], flush=True)
            continue
        except Exception as e:  # the allocator died, or what it does isn't fixed by the script
            failed += 1
            print(label, "FAILED", repr(e)[:300], flush=True)
            continue
        gen.dump(os.path.join(out, f"{name}_{case.seed}.jsonl.gz"), head, recs, fin)
        written += 1
        drop = sorted(set(head.get("dropped", {}).values()))
        print(label, case.addr, f"{case.cap >> 20}M", "ops", len(recs), "oom", sum("oom" in x for x in recs),
              "err", sum("err" in x for x in recs), "unordered", len(head["unordered"]), "dropped",
              f"{len(head.get('dropped', {}))}{drop if drop else ''}", "match", fin["trace_match"], flush=True)
    print(a.tag, written, "written,", skipped, "refused,", failed, "failed", flush=True)
    return 0 if written == a.count else 1


if __name__ == "__main__":
    sys.exit(main())

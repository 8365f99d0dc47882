#!/usr/bin/env python3
"""Makes a large snapshot of a small one, to try how large files are read.

    benches/enlarge.py SNAPSHOT OUT TIMES

The history of each device is repeated TIMES times. Every repetition is a copy of the whole run at
addresses of its own, and so are its segments, so that the entries remain those of a real allocator,
apart from its first-fit order: the copies do not share segments.
"""

import gzip
import pickle
import sys

# Beyond what one run spans, and small enough that a dozen of them stay addresses of a process.
SHIFT = 1 << 42


def load(path):
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rb") as file:
        return pickle.load(file)


def shifted(record, keys, by):
    copy = dict(record)
    for key in keys:
        if key in copy:
            copy[key] += by
    return copy


def entry(record, by):
    # The address of an out-of-memory is how much the device had free.
    return record if record["action"] in ("oom", "snapshot") else shifted(record, ["addr"], by)


def segment(record, by):
    copy = shifted(record, ["address"], by)
    copy["blocks"] = [shifted(block, ["address"], by) for block in record["blocks"]]
    return copy


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    source, out, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
    snapshot = load(source)
    shifts = [n * SHIFT for n in range(times)]
    if any(e["addr"] + shifts[-1] + SHIFT >= 1 << 63
           for trace in snapshot["device_traces"] for e in trace if "addr" in e):
        sys.exit(f"{times} copies do not fit below 2^63")
    snapshot["segments"] = sorted(
        (segment(s, by) for by in shifts for s in snapshot["segments"]),
        key=lambda s: (s["device"], s["address"]))
    snapshot["device_traces"] = [
        [entry(e, by) for by in shifts for e in trace] for trace in snapshot["device_traces"]]
    with open(out, "wb") as file:
        pickle.dump(snapshot, file, protocol=4)


if __name__ == "__main__":
    main()

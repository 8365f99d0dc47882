#!/usr/bin/env python3
"""Compares how fast a snapshot is read: fragsim, Python's pickle.load, and the packed form.

    benches/load_peer.py FRAGSIM SNAPSHOT [RUNS]

FRAGSIM is the program, SNAPSHOT a pickle that is not compressed. Each side runs RUNS (5) times, in
turn; the medians are shown. The time of Python is that of pickle.load alone; fragsim's is what
`replay --repeat 1 --format json` reports as "load_s": from the start of reading to a trace ready for
replay. The memory is the peak of the process: of fragsim that of `inspect`, which reads the file and
rebuilds the trace, and of `replay`, which runs it too.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile

PYTHON = """
import pickle, sys, time
start = time.perf_counter()
with open(sys.argv[1], "rb") as file:
    pickle.load(file)
print(time.perf_counter() - start)
"""


def run(command):
    """What a command prints, and the peak memory of its process in MiB."""
    read, write = os.pipe()
    process = subprocess.Popen(command, stdout=write, stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as out:
        text = out.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        sys.exit(f"{' '.join(command)}: exit status {process.returncode}")
    return text, usage.ru_maxrss / 1024


def load_s(fragsim, path):
    text, peak = run([fragsim, "replay", path, "--repeat", "1", "--format", "json"])
    return json.loads(text)["timing"]["load_s"], peak


def python_s(path):
    text, peak = run([sys.executable, "-c", PYTHON, path])
    return float(text), peak


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    fragsim, snapshot = sys.argv[1:3]
    runs = int(sys.argv[3]) if len(sys.argv) == 4 else 5
    with tempfile.TemporaryDirectory() as folder:
        packed = os.path.join(folder, "packed")
        subprocess.run([fragsim, "pack", snapshot, "-o", packed], check=True,
                       stdout=subprocess.DEVNULL)
        sides = {
            "pickle.load": lambda: python_s(snapshot),
            "fragsim": lambda: load_s(fragsim, snapshot),
            "fragsim, packed": lambda: load_s(fragsim, packed),
        }
        results = {name: [] for name in sides}
        inspected = []
        for _ in range(runs):
            for name, side in sides.items():
                results[name].append(side())
            inspected.append(run([fragsim, "inspect", snapshot])[1])
        sizes = os.path.getsize(snapshot), os.path.getsize(packed)
    size = sizes[0] / 2**20
    print(f"{snapshot}: {size:.1f} MiB; packed {sizes[1] / 2**20:.2f} MiB; medians of {runs}")
    print(f"{'':18}{'time':>10}{'ratio':>9}{'peak memory':>14}")
    python = statistics.median(time for time, _ in results["pickle.load"])
    for name, all_runs in results.items():
        time = statistics.median(time for time, _ in all_runs)
        peak = statistics.median(peak for _, peak in all_runs)
        print(f"{name:18}{time:9.3f}s{python / time:8.1f}x{peak:10.1f} MiB")
    peak = statistics.median(inspected)
    print(f"{'fragsim inspect':18}{'':19}{peak:10.1f} MiB  (the file and {peak - size:+.1f} MiB)")


if __name__ == "__main__":
    main()

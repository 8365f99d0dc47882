#!/bin/sh
# Instructions of the three hottest paths: a request that the free list serves, a free, and a whole
# recording. The same on every run of one build, whatever else the machine does.
#
#     benches/instructions.sh
#
# Needs valgrind (`apt-get install valgrind`, `dnf install valgrind`). Builds with optimisation first.
# "mispredicted" is what callgrind's model of a branch predictor misses, not what the CPU does.
set -eu
cd "$(dirname "$0")/.."

if ! command -v valgrind >/dev/null; then
    echo "valgrind is not installed; try: apt-get install valgrind" >&2
    exit 2
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo bench --quiet --bench hot --no-run --message-format=json |
    sed -n 's/.*"name":"hot".*"executable":"\([^"]*\)".*/\1/p' >"$log"
hot=$(cat "$log")

row() { # NAME PROGRAM CONF
    ops=$(valgrind --tool=callgrind --branch-sim=yes --callgrind-out-file=/dev/null \
        --toggle-collect='fragsim::sim::replay::replay_part*' "$hot" once "$2" "$3" 2>"$log")
    # Events: Ir Bc Bcm Bi Bim
    sed -n 's/.*Collected : //p' "$log" | awk -v name="$1" -v conf="${3:-default}" -v ops="$ops" \
        '{ printf "%-28s %-26s %9d %10.1f %10.3f\n", name, conf, ops, $1 / ops, ($3 + $5) / ops }'
}

printf '%-28s %-26s %9s %10s %10s\n' "" "" "" "per" "operation"
printf '%-28s %-26s %9s %10s %10s\n' path settings operations instr. mispred.
for conf in "" expandable_segments:True; do
    row "malloc, 1000 live blocks" malloc "$conf"
    row "free, 1000 live blocks" free "$conf"
    row "varlen_oom, whole" traces/recorded/varlen_oom.pickle.gz "$conf"
done

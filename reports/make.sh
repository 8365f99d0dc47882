#!/bin/sh
# Makes the pictures and the page of this folder anew: reports/make.sh [PROGRAM [FOLDER]]
set -eu
cd "$(dirname "$0")/.."
fragsim=${1:-"cargo run --release --quiet --"}
to=${2:-reports}
varlen=traces/recorded/varlen_oom.pickle.gz
cure=expandable_segments:True

$fragsim plot $varlen -o "$to"/varlen_memory.svg
$fragsim plot $varlen --conf $cure -o "$to"/varlen_memory_cured.svg
$fragsim plot $varlen --kind fragmentation -o "$to"/varlen_fragmentation.svg
$fragsim plot $varlen --kind segments -o "$to"/varlen_segments.svg
$fragsim plot $varlen --kind segments --conf $cure --at 31046 -o "$to"/varlen_segments_cured.svg
$fragsim plot $varlen --kind sizes -o "$to"/varlen_sizes.svg
set -- --conf recorded --conf $cure --conf max_split_size_mb:128 --conf max_split_size_mb:512 \
  --conf roundup_power2_divisions:4 --conf large_segment_size_mb:64
$fragsim plot $varlen --kind compare "$@" -o "$to"/varlen_compare.svg
$fragsim plot $varlen --kind pareto "$@" -o "$to"/varlen_pareto.svg
$fragsim report $varlen --conf recorded --conf $cure -o "$to"/varlen.html

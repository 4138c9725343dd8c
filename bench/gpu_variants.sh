#!/usr/bin/env bash
# FOR ONE RUN ONLY: the GPU engine's variants beside each other, and where the time goes. About 20 s.
set -uo pipefail
cd "$(dirname "$0")/.."
mzsr=${MZSR:-runs/gpu/mzsr} device=${1:-gpu} each=${EACH:-0.4}
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
for variant in MZSR_GPU_CONV=winograd MZSR_GPU_AHEAD=1 MZSR_GPU_PART=2048 MZSR_GPU_PART=16384 MZSR_GPU_CONV=old; do
  echo "== $variant"
  env $variant "$mzsr" bench --device "$device" --seconds "$each" 2>&1
done
echo "== where the time goes: rates"
MZSR_GPU_TIMES=1 "$mzsr" bench --device "$device" --seconds 0.1 --rates-only 2>&1
python3 - "$tmp/photo.png" 256 <<'PY'
import sys, pathlib
sys.path.insert(0, "bench/peers")
from torch_upscale import write_png
write_png(pathlib.Path(sys.argv[1]), int(sys.argv[2]), 1)
PY
for n in 1 10; do
  for _ in 1 2 3; do
    start=$(date +%s%N)
    "$mzsr" upscale "$tmp/photo.png" -o "$tmp/out.png" -s 2 --weights bicubic-x2 -n $n --device "$device" -q
    echo "upscale -n $n, whole process: $((($(date +%s%N) - start) / 1000000)) ms"
  done
done
echo "== start-up with one thread, each pipeline by itself"
RAYON_NUM_THREADS=1 MZSR_GPU_TIMES=1 "$mzsr" upscale "$tmp/photo.png" -o "$tmp/out.png" -s 2 --weights bicubic-x2 -n 0 --device "$device" -q 2>&1 | grep -v " us "
echo "== where the time goes: a process"
MZSR_GPU_TIMES=1 "$mzsr" upscale "$tmp/photo.png" -o "$tmp/out.png" -s 2 --weights bicubic-x2 -n 10 --device "$device" -v 2>&1

#!/usr/bin/env bash
# PSNR over kernels that nobody trained on (bench/make_kernels.py), ×2, every second pixel kept: aligned
# cubic, least squares, the kernel-aware network without updates, and the bicubic-start network with as
# many as it was trained for.
#
# usage: bench/unseen_kernels.sh FOLDER [NAME|FILE of kernel-aware weights [of bicubic-start weights]]
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1 aware=${2:-kernel-direct-x2} start=${3:-mzsr-direct-x2}
mzsr=${MZSR:-${CARGO_TARGET_DIR:-target}/release/mzsr}
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
bench/make_kernels.py "$tmp/kernels"
psnr() {
  rm -rf "$tmp/sr"
  "$mzsr" upscale "$tmp/lr" -o "$tmp/sr/" -q --kernel "$kernel" "$@" 2>/dev/null
  "$mzsr" score "$tmp/sr" "$folder" -s 2 --json 2>/dev/null |
    python3 -c 'import json,sys; print("%.2f" % json.load(sys.stdin)["mean"]["psnr"], end=" | ")'
}
echo "| kernel | aligned cubic | least squares | $aware | $start |"
echo "|---|---|---|---|---|"
for kernel in "$tmp"/kernels/*.txt; do
  rm -rf "$tmp/lr"
  "$mzsr" degrade "$folder" -o "$tmp/lr/" -s 2 --crop -q --kernel "$kernel" 2>/dev/null
  printf '| %s | ' "$(basename "$kernel" .txt)"
  psnr --method aligned
  psnr --method least-squares
  psnr --weights "$aware" -n 0
  psnr --weights "$start"
  echo
done

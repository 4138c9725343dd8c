#!/usr/bin/env bash
# PSNR where the photo or the kernel is not what the network was told, ×2, every second pixel kept after
# gaussian:2.0: aligned cubic, least squares, the kernel-aware network without updates and the bicubic-start
# network with as many as it was trained for. The first row is the clean case.
#
# usage: bench/robustness.sh FOLDER [NAME|FILE of kernel-aware weights [of bicubic-start weights]]
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1 aware=${2:-kernel-direct-x2} start=${3:-mzsr-direct-x2}
mzsr=${MZSR:-${CARGO_TARGET_DIR:-target}/release/mzsr}
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
psnr() {
  rm -rf "$tmp/sr"; mkdir "$tmp/sr"
  for low in "$tmp"/lr/*; do
    local name; name=$(basename "${low%.*}")
    "$mzsr" upscale "$low" -o "$tmp/sr/$name.png" -q "${given[@]}" "$@" 2>/dev/null
  done
  "$mzsr" score "$tmp/sr" "$folder" -s 2 --json 2>/dev/null |
    python3 -c 'import json,sys; print("%.2f" % json.load(sys.stdin)["mean"]["psnr"], end=" | ")'
}
# NAME, then what makes the photos small, then "--" and what the program is told.
row() {
  local name=$1 quality=$2; shift 2
  local made=()
  while [ "$1" != -- ]; do made+=("$1"); shift; done
  shift
  given=("$@")
  rm -rf "$tmp/lr"; mkdir -p "$tmp/lr"
  for photo in "$folder"/*; do
    local stem; stem=$(basename "${photo%.*}")
    if [ "$quality" = none ]; then
      "$mzsr" degrade "$photo" -o "$tmp/lr/$stem.png" -s 2 --crop -q "${made[@]}" 2>/dev/null
    else
      "$mzsr" degrade "$photo" -o "$tmp/lr/$stem.jpg" --quality "$quality" -s 2 --crop -q "${made[@]}" 2>/dev/null
    fi
  done
  printf '| %s | ' "$name"
  psnr --method aligned
  psnr --method least-squares
  psnr --weights "$aware" -n 0
  psnr --weights "$start"
  echo
}
echo "| case | aligned cubic | least squares | $aware | $start |"
echo "|---|---|---|---|---|"
right=(--kernel gaussian:2.0)
row "clean" none "${right[@]}" -- "${right[@]}"
row "noise, σ = 2 of 255" none "${right[@]}" --noise 2 -- "${right[@]}"
row "noise, σ = 5 of 255" none "${right[@]}" --noise 5 -- "${right[@]}"
row "JPEG, quality 90" 90 "${right[@]}" -- "${right[@]}"
row "JPEG, quality 75" 75 "${right[@]}" -- "${right[@]}"
# Widths are standard deviations: 1.414 px, and a fifth less and more.
row "kernel given 20 % too narrow" none "${right[@]}" -- --kernel gaussian:sigma=1.131
row "kernel given 20 % too wide" none "${right[@]}" -- --kernel gaussian:sigma=1.697
row "kernel given half a pixel off" none "${right[@]}" -- "${right[@]}" --phase centre

#!/usr/bin/env bash
# PSNR and SSIM of a method on a folder of photos, by the evaluation protocol, for the degradations of
# the paper: every photo is cut to a multiple of the scale, degraded, rounded to 8 bits, enlarged, scored.
#
# usage: bench/evaluate.sh FOLDER CASES [upscale flags…]
#   CASES: some of g0.2d g2.0d g_anid g1.3b bicubic x4g2.0d, with commas, or all
#   e.g. bench/evaluate.sh data/Set5 bicubic --weights bicubic-x2 -n 0
set -euo pipefail
folder=$1 cases=$2; shift 2
[ "$cases" = all ] && cases=g0.2d,g2.0d,g_anid,g1.3b,bicubic,x4g2.0d
mzsr=${MZSR:-${CARGO_TARGET_DIR:-target}/release/mzsr}
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
for case in ${cases//,/ }; do
  scale=2
  case $case in
    g0.2d) flags=(--kernel gaussian:0.2) ;;
    g2.0d) flags=(--kernel gaussian:2.0) ;;
    g_anid) flags=(--kernel gaussian:4.0,1.0,-0.5) ;;
    g1.3b) flags=(--kernel gaussian:1.3 --downsample bicubic) ;;
    bicubic) flags=(--kernel none) ;;
    x4g2.0d) flags=(--kernel gaussian:2.0); scale=4 ;;
    *) echo "evaluate.sh: case '$case' is not known" >&2; exit 2 ;;
  esac
  rm -rf "$tmp/lr" "$tmp/sr"
  "$mzsr" degrade "$folder" -o "$tmp/lr/" -s $scale --crop -q "${flags[@]}"
  "$mzsr" upscale "$tmp/lr" -o "$tmp/sr/" -s $scale -q "${flags[@]}" "$@" 2>/dev/null
  "$mzsr" score "$tmp/sr" "$folder" -s $scale --json 2>/dev/null |
    python3 -c 'import json,sys; r=json.load(sys.stdin); print("%-8s %4d photos  %.3f dB  %.4f" % (sys.argv[1], len(r["images"]), r["mean"]["psnr"], r["mean"]["ssim"]))' "$case"
done

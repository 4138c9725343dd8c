#!/usr/bin/env bash
# `mzsr` on a GPU beside PyTorch on the same one. No network and no build: what it needs is packed first.
#
#   bench/gpu.sh pack            on a machine with Rust: builds, and puts all into runs/gpu (under 60 MB)
#   bench/gpu.sh [DEVICE]        on the machine with the GPU: rates, and whole restorations with 1 and 10
#                                updates, with six passes and their solves, and by least squares alone
#                                (--lambda: the picture has no such blur, and others would be looked for);
#                                DEVICE as for `mzsr --device`, gpu unless told otherwise
#
# EACH (4) is how long each rate is measured (EACH=no leaves them out: on a software renderer they take
# many minutes, whatever SIDE is), ROUNDS (5) how often a restoration is timed, SIDE (256) that of the
# photo, TORCH_DEVICE (cuda) PyTorch's.
set -euo pipefail
cd "$(dirname "$0")/.."
packed=runs/gpu
if [ "${1:-}" = pack ]; then
  cargo build --release --quiet
  mkdir -p "$packed"
  cp "${CARGO_TARGET_DIR:-target}/release/mzsr" "$packed/mzsr"
  strip "$packed/mzsr" 2>/dev/null || true
  du -sh "$packed"
  exit
fi
device=${1:-gpu} mzsr=$packed/mzsr
[ -x "$mzsr" ] || { echo "gpu.sh: $mzsr is not there; run bench/gpu.sh pack where Rust is" >&2; exit 1; }
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
"$mzsr" devices
[ "${EACH:-4}" = no ] || "$mzsr" bench --device "$device" --seconds "${EACH:-4}"
python3 - "$tmp/photo.png" "${SIDE:-256}" <<'PY'
import sys, pathlib
sys.path.insert(0, "bench/peers")
from torch_upscale import write_png
write_png(pathlib.Path(sys.argv[1]), int(sys.argv[2]), 1)
PY
for how in "--weights bicubic-x2 -n 1" "--weights bicubic-x2 -n 10" \
  "--kernel gaussian:2.0 --lambda 1e-3 --weights kernel-direct-x2 -n 0" "--kernel gaussian:2.0 --lambda 1e-3 --method least-squares"; do
  for _ in $(seq "${ROUNDS:-5}"); do
    start=$(date +%s%N)
    # shellcheck disable=SC2086 # Several words.
    "$mzsr" upscale "$tmp/photo.png" -o "$tmp/out.png" -s 2 $how --device "$device" -q
    echo "mzsr upscale $how, whole process: $((($(date +%s%N) - start) / 1000000)) ms"
  done
done
if python3 -c 'import torch' 2>/dev/null; then
  python3 bench/peers/torch_gpu.py --device "${TORCH_DEVICE:-cuda}" --side "${SIDE:-256}" --rounds "${ROUNDS:-5}"
else
  echo "PyTorch is not here: nothing to compare with"
fi

#!/usr/bin/env bash
# A training on a machine with a GPU, without network or build.
#
#   bench/train_gpu.sh pack DATA           on a machine with Rust: the program and photos into runs/gpu,
#                                          under 60 MB (whole folders as long as they fit, then single photos)
#   bench/train_gpu.sh RECIPE [FLAGS…]     there: mzsr pretrain or meta-train, as the recipe is, with --device
#                                          gpu and --resume where a checkpoint is; DEVICE=cpu tries it here
set -euo pipefail
cd "$(dirname "$0")/.."
packed=runs/gpu limit=$((${LIMIT_MB:-60} * 1000000))
if [ "${1:-}" = pack ]; then
  data=${2:?"usage: bench/train_gpu.sh pack DATA"}
  bench/gpu.sh pack
  used=$(du -sb "$packed/mzsr" | cut -f1)
  for folder in valid train/photos train/sunhays train/bsds; do
    mkdir -p "$packed/data/$folder"
    for photo in "$data/$folder"/*; do
      size=$(stat -c %s "$photo")
      [ $((used + size)) -le "$limit" ] || { echo "train_gpu.sh: full, the rest of $folder stays here"; break; }
      cp "$photo" "$packed/data/$folder/"
      used=$((used + size))
    done
  done
  du -sh "$packed"
  exit
fi
recipe=${1:?"usage: bench/train_gpu.sh RECIPE [FLAGS…]"}; shift
[ -f "$recipe" ] || { echo "train_gpu.sh: there is no recipe $recipe" >&2; exit 1; }
[ -x "$packed/mzsr" ] || { echo "train_gpu.sh: $packed/mzsr is not there; run bench/train_gpu.sh pack DATA where Rust is" >&2; exit 1; }
command=pretrain
grep -q '^\[meta\]' "$recipe" && command=meta-train
exec "$packed/mzsr" "$command" "$recipe" --data "$packed/data" --device "${DEVICE:-gpu}" --resume "$@"

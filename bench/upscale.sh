#!/usr/bin/env bash
# `mzsr upscale -n 10` of 256 x 256 to 512 x 512 beside PyTorch, its memory and its start.
#
#   bench/upscale.sh [VENV] [-- more for torch_upscale.py]
#
# VENV (default target/peers) is a virtual environment; it is made, and PyTorch installed into it,
# if it is not there. Nothing else of this machine is changed.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=target/peers
if [ $# -gt 0 ] && [ "$1" != "--" ]; then venv=$1; shift; fi
[ "${1:-}" = "--" ] && shift

if ! "$venv/bin/python" -c 'import torch, numpy, safetensors' 2>/dev/null; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet -r bench/peers/requirements.txt
fi
cargo build --release --quiet
exec "$venv/bin/python" bench/peers/torch_upscale.py --mzsr "${CARGO_TARGET_DIR:-target}/release/mzsr" "$@"

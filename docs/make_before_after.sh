#!/usr/bin/env bash
# Draws docs/before-after.png: details of docs/example-large.png (docs/make_example.py draws it), made
# half as large by `mzsr degrade` and enlarged again by bicubic and by `mzsr upscale` as it is by default.
#
# usage: docs/make_before_after.sh [flags of degrade and upscale, e.g. --kernel gaussian:2.0]
# Needs python3 with numpy and pillow (another one: PYTHON=…/python3).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
cargo build --release --quiet
mzsr=${CARGO_TARGET_DIR:-target}/release/mzsr
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
large=docs/example-large.png
[ -f $large ] || "$python" docs/make_example.py $large

"$mzsr" degrade $large -o "$tmp/small.png" -s 2 "$@"
"$mzsr" upscale "$tmp/small.png" -o "$tmp/bicubic.png" --method aligned -q "$@"
"$mzsr" upscale "$tmp/small.png" -o "$tmp/mzsr.png" "$@"
for name in bicubic mzsr; do "$mzsr" score "$tmp/$name.png" $large --json >"$tmp/$name.json"; done

"$python" - "$tmp" $large docs/before-after.png <<'PY'
import json, sys
from PIL import Image, ImageDraw, ImageFont

folder, large, out = sys.argv[1:]
ZOOM, WIDTH, HEIGHT, GAP, HEAD = 3, 108, 68, 8, 30
DETAILS = [(120, 99), (428, 160), (252, 205)]  # x, y: letters, stripes, and lines too fine to survive


def psnr(name):
    return "%s, %.2f dB" % (name, json.load(open(f"{folder}/{name}.json"))["mean"]["psnr"])


columns = [(psnr("bicubic"), f"{folder}/bicubic.png"), (psnr("mzsr"), f"{folder}/mzsr.png"), ("the original", large)]
w, h = WIDTH * ZOOM, HEIGHT * ZOOM
sheet = Image.new("RGB", (3 * w + 2 * GAP, HEAD + len(DETAILS) * (h + GAP) - GAP), "white")
draw = ImageDraw.Draw(sheet)
for column, (title, path) in enumerate(columns):
    left = column * (w + GAP)
    draw.text((left + w // 2, HEAD // 2), title, fill=(40, 40, 40), anchor="mm", font=ImageFont.load_default(17))
    picture = Image.open(path).convert("RGB")
    for row, (x, y) in enumerate(DETAILS):
        detail = picture.crop((x, y, x + WIDTH, y + HEIGHT)).resize((w, h), Image.NEAREST)
        sheet.paste(detail, (left, HEAD + row * (h + GAP)))
sheet.save(out, optimize=True)
PY
ls -l docs/before-after.png

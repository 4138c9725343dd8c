"""Draws docs/example-large.png, the README's test picture: spheres over a tiled floor, by ray tracing.

usage: make_example.py OUT.png    (needs numpy and pillow)
"""
import sys
import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT, SAMPLES = 640, 448, 4
LIGHT = np.array([0.55, 0.75, -0.45]); LIGHT /= np.linalg.norm(LIGHT)
SPHERES = [  # centre, radius, colour, share of reflection
    ((-1.25, 0.9, 4.6), 0.9, (0.85, 0.25, 0.16), 0.25),
    ((0.75, 0.6, 3.6), 0.6, (0.16, 0.42, 0.75), 0.35),
    ((2.0, 1.1, 6.2), 1.1, (0.92, 0.75, 0.28), 0.15),
    ((-0.25, 0.35, 2.6), 0.35, (0.3, 0.62, 0.3), 0.2),
]


def letters():
    """A board with text, read by the tracer as a texture."""
    board = Image.new("L", (720, 144), 235)
    draw = ImageDraw.Draw(board)
    for row, text in enumerate(["meta-transfer learning", "zero-shot super-resolution", "ABCDEFG 0123456789 &%$"]):
        word = Image.new("L", (len(text) * 6 + 4, 12), 235)
        ImageDraw.Draw(word).text((2, 0), text, fill=20)
        board.paste(word.resize((word.width * 4, 48), Image.LANCZOS), (16, row * 48))
    return np.asarray(board) / 255.0


BOARD = letters()


def hit(origin, ray):
    """Distance and object (−1 none, 0 … spheres, then floor, then board) of each ray's first hit."""
    best = np.full(len(ray), np.inf); what = np.full(len(ray), -1)
    for i, (centre, radius, _, _) in enumerate(SPHERES):
        offset = origin - np.array(centre)
        b = (offset * ray).sum(1); root = b * b - (offset * offset).sum(1) + radius**2
        t = -b - np.sqrt(np.maximum(root, 0))
        good = (root > 0) & (t > 1e-3) & (t < best)
        best[good] = t[good]; what[good] = i
    with np.errstate(divide="ignore", invalid="ignore"):
        t = -origin[:, 1] / ray[:, 1]
        good = (t > 1e-3) & (t < best); best[good] = t[good]; what[good] = len(SPHERES)
        t = (8.0 - origin[:, 2]) / ray[:, 2]; p = origin + t[:, None] * ray
        good = (t > 1e-3) & (t < best) & (np.abs(p[:, 0]) < 3.6) & (p[:, 1] > 1.9) & (p[:, 1] < 3.34)
        best[good] = t[good]; what[good] = len(SPHERES) + 1
    return best, what


def colour(origin, ray, depth=2):
    t, what = hit(origin, ray)
    up = np.clip(ray[:, 1], 0, 1)[:, None]
    out = (1 - up) * np.array([0.86, 0.91, 0.96]) + up * np.array([0.3, 0.5, 0.8])
    seen = what >= 0
    if not seen.any():
        return out
    p = origin[seen] + t[seen, None] * ray[seen]; r = ray[seen]; w = what[seen]
    normal = np.zeros_like(p); base = np.zeros_like(p); mirror = np.zeros(len(p))
    for i, (centre, radius, shade, share) in enumerate(SPHERES):
        m = w == i; normal[m] = (p[m] - centre) / radius; base[m] = shade; mirror[m] = share
        if i == 2:  # stripes
            base[m] *= np.where(np.sin(18 * p[m, 1]) > 0, 1.0, 0.35)[:, None]
    m = w == len(SPHERES); normal[m] = (0, 1, 0)
    check = (np.floor(2 * p[m, 0]) + np.floor(2 * p[m, 2])) % 2
    joint = (np.abs((2 * p[m, 0]) % 1 - 0.5) > 0.47) | (np.abs((2 * p[m, 2]) % 1 - 0.5) > 0.47)
    base[m] = np.where(joint, 0.22, 0.45 + 0.4 * check)[:, None] * np.array([1.0, 0.96, 0.9]); mirror[m] = 0.08
    m = w == len(SPHERES) + 1; normal[m] = (0, 0, -1)
    u = np.clip((p[m, 0] + 3.6) / 7.2 * BOARD.shape[1], 0, BOARD.shape[1] - 1).astype(int)
    v = np.clip((3.34 - p[m, 1]) / 1.44 * BOARD.shape[0], 0, BOARD.shape[0] - 1).astype(int)
    base[m] = BOARD[v, u][:, None] * np.array([1.0, 0.98, 0.94])
    lit = np.clip((normal * LIGHT).sum(1), 0, 1) * (hit(p + 1e-4 * normal, np.broadcast_to(LIGHT, p.shape))[1] < 0)
    shade = base * (0.3 + 0.75 * lit)[:, None]
    if depth:
        reflected = r - 2 * (r * normal).sum(1)[:, None] * normal
        shade = (1 - mirror)[:, None] * shade + mirror[:, None] * colour(p + 1e-4 * normal, reflected, depth - 1)
    out[seen] = shade
    return out


def main():
    total = np.zeros((HEIGHT * WIDTH, 3))
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    for i in range(SAMPLES * SAMPLES):
        dx, dy = (i % SAMPLES + 0.5) / SAMPLES, (i // SAMPLES + 0.5) / SAMPLES
        ray = np.stack([(x + dx - WIDTH / 2) / 520, (HEIGHT / 2 - y - dy) / 520 - 0.02, np.ones(x.shape)], 2).reshape(-1, 3)
        ray /= np.linalg.norm(ray, axis=1)[:, None]
        total += colour(np.broadcast_to([0.0, 1.35, -1.2], ray.shape).copy(), ray)
    picture = np.clip(total / SAMPLES**2, 0, 1) ** (1 / 1.8)
    Image.fromarray(np.round(picture * 255).astype(np.uint8).reshape(HEIGHT, WIDTH, 3)).save(sys.argv[1])


main()

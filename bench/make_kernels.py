#!/usr/bin/env python3
"""Writes blur kernels that nobody trains on, as text files for --kernel. usage: make_kernels.py FOLDER

Motion of several lengths and angles, disks, mixtures, and an asymmetric one; each 15 x 15, sampled
31 x 31 times a pixel, sum 1, centroid at the centre. Needs nothing but Python.
"""
import math, os, sys

SIZE, FINE = 15, 31


def kernel(points):
    """Weights of points (x, y, weight), each spread over the pixels around it (bilinearly)."""
    cx = sum(x * w for x, y, w in points) / sum(w for *_, w in points)
    cy = sum(y * w for x, y, w in points) / sum(w for *_, w in points)
    grid = [[0.0] * SIZE for _ in range(SIZE)]
    for x, y, w in points:
        u, v = x - cx + SIZE // 2, y - cy + SIZE // 2
        i, j = math.floor(v), math.floor(u)
        for di, wi in ((0, 1 - (v - i)), (1, v - i)):
            for dj, wj in ((0, 1 - (u - j)), (1, u - j)):
                if 0 <= i + di < SIZE and 0 <= j + dj < SIZE:
                    grid[i + di][j + dj] += w * wi * wj
    total = sum(map(sum, grid))
    return [[w / total for w in row] for row in grid]


def line(length, degrees):
    c, s, n = math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), 200
    return [(c * t, s * t, 1.0) for t in (length * (k / n - 0.5) for k in range(n + 1))]


def disk(radius):
    steps = [(k + 0.5) / FINE - 0.5 for k in range(-int(radius + 1) * FINE, int(radius + 2) * FINE)]
    return [(x, y, 1.0) for x in steps for y in steps if x * x + y * y <= radius * radius]


def gaussian(variance, x=0.0, y=0.0, weight=1.0):
    steps = [(k / 4, l / 4) for k in range(-24, 25) for l in range(-24, 25)]
    return [(a + x, b + y, weight * math.exp(-(a * a + b * b) / (2 * variance)) / variance) for a, b in steps]


def curve():
    """A hand that shakes: an arc travelled slower and slower."""
    return [(3.0 * math.cos(2.4 * t), 2.0 * math.sin(2.4 * t), 0.3 + t) for t in (k / 300 for k in range(301))]


KERNELS = {
    "motion-3-0": line(3, 0), "motion-5-45": line(5, 45), "motion-7-100": line(7, 100), "motion-9-20": line(9, 20),
    "disk-1.0": disk(1.0), "disk-1.7": disk(1.7), "disk-2.5": disk(2.5),
    "two-gaussians": gaussian(0.6) + gaussian(4.0, weight=0.6), "two-places": gaussian(0.8, -1.2, -0.6) + gaussian(0.8, 1.2, 0.6),
    "gaussian-and-motion": gaussian(1.5) + [(x, y, 25 * w / 200) for x, y, w in line(6, 70)],
    "arc": curve(), "one-sided": gaussian(0.5, -0.6, 0.4) + gaussian(2.5, 1.6, -1.0, 0.8),
}

folder = sys.argv[1]
os.makedirs(folder, exist_ok=True)
for name, points in KERNELS.items():
    with open(os.path.join(folder, name + ".txt"), "w") as file:
        file.writelines(" ".join(f"{w:.9f}" for w in row) + "\n" for row in kernel(points))

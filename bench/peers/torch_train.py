#!/usr/bin/env python3
"""Trains mzsr's weights with PyTorch on a GPU, for a given time.

    torch_train.py aware WEIGHTS OUT --photos FOLDER… --seconds N     the kernel-aware network, all passes at once
    torch_train.py meta  WEIGHTS OUT --photos FOLDER… --seconds N     meta-transfer training, exact second order
    torch_train.py check                                              its arithmetic against autograd in float64

It begins with a weights file of mzsr (safetensors) and writes one. What it trains is what the program
does, with two differences that make it fast on a GPU. Pictures are tori, so that blur, subsampling and
the cubic resizes are products of spectra, and conjugate gradients act on one number a frequency; a
border of each crop, where that shows, does not count. And the data steps of the kernel-aware network are
taken to the end, which the program's ten steps from where the last ones ended are near to.

On CUDA a whole step, the making of its pictures included, is one CUDA graph. Needs torch, numpy and PIL.
"""

import argparse
import json
import math
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

SIZE = 15  # of kernels
FEATURES = 10
LAYERS = 8


# Files


def read_safetensors(path):
    data = Path(path).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    meta = header.pop("__metadata__", {})
    body = data[8 + length :]
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = torch.from_numpy(np.frombuffer(body[begin:end], "<f4").reshape(entry["shape"]).copy())
    return tensors, meta


def write_safetensors(path, tensors, meta):
    header, at, parts = {"__metadata__": meta}, 0, []
    for name in sorted(tensors):
        data = tensors[name].detach().float().cpu().contiguous().numpy().astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensors[name].shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
        parts.append(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    beside = Path(str(path) + ".part")
    beside.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))
    beside.rename(path)


class Photos:
    """Photos on the device as one row of pixels, seen by their area."""

    def __init__(self, folders, least, device):
        from PIL import Image

        files = sorted(f for folder in folders if Path(folder).is_dir() for f in Path(folder).iterdir())
        with ThreadPoolExecutor(16) as pool:
            photos = list(pool.map(lambda f: np.asarray(Image.open(f).convert("RGB")), files))
        photos = [p for p in photos if min(p.shape[:2]) >= least]
        self.count = len(photos)
        self.flat = torch.from_numpy(np.concatenate([p.reshape(-1, 3) for p in photos])).to(device)
        sizes = np.array([p.shape[:2] for p in photos])
        ends = np.cumsum(sizes.prod(1))
        integer = lambda v: torch.from_numpy(np.asarray(v)).long().to(device)
        self.base, self.ends = integer(ends - sizes.prod(1)), integer(ends)
        self.height, self.width = integer(sizes[:, 0]), integer(sizes[:, 1])
        self.device = device

    def crops(self, count, side):
        """count × 3 × side × side in [0, 1], turned at random."""
        rand = lambda n: torch.rand(n, device=self.device)
        which = torch.searchsorted(self.ends, (rand(count).double() * self.ends[-1]).long(), right=True)
        which = which.clamp(max=self.count - 1)
        top = (rand(count) * (self.height[which] - side + 1)).long()
        left = (rand(count) * (self.width[which] - side + 1)).long()
        along = torch.arange(side, device=self.device)
        flip = lambda: torch.where(rand(count)[:, None] < 0.5, along, side - 1 - along)
        rows, columns = flip()[:, :, None], flip()[:, None, :]
        turned = rand(count)[:, None, None] < 0.5
        y, x = torch.where(turned, columns, rows), torch.where(turned, rows, columns)
        at = (self.base[which] + top * self.width[which] + left)[:, None, None] + y * self.width[which][:, None, None] + x
        return self.flat[at].permute(0, 3, 1, 2).float() / 255


# Kernels, as in src/train/recipe.rs and src/kernel


def gaussian(first, second, angle):
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    s, c = math.sin(angle), math.cos(angle)
    q = (c * x + s * y) ** 2 / first + (c * y - s * x) ** 2 / second
    k = np.exp(-0.5 * (q - q.min()))
    return k / k.sum()


def disk(radius):
    at = (np.arange(SIZE * 32) + 0.5) / 32 - 0.5 - SIZE // 2
    inside = np.hypot(at[:, None], at[None, :]) <= radius
    k = inside.reshape(SIZE, 32, SIZE, 32).sum((1, 3)).astype(float)
    return k / k.sum()


def motion(length, angle):
    points = max(math.ceil(64 * length), 1)
    along = length * (np.arange(points + 1) / points - 0.5)
    x, y = SIZE // 2 + along * math.cos(angle), SIZE // 2 + along * math.sin(angle)
    k = np.zeros((SIZE, SIZE))
    for row, part in ((np.floor(y), 1 - y % 1), (np.floor(y) + 1, y % 1)):
        for column, share in ((np.floor(x), 1 - x % 1), (np.floor(x) + 1, x % 1)):
            inside = (row >= 0) & (row < SIZE) & (column >= 0) & (column < SIZE)
            np.add.at(k, (row[inside].astype(int), column[inside].astype(int)), (part * share)[inside])
    return k / k.sum()


def draw_kernel(random, scale, shares):
    """A kernel, and what the network is told that it is."""
    kind, first, second, angle, round_, wrong, factor = random.random(7)
    between = lambda low, high, share: low + (high - low) * share

    def kernel(wider):
        if kind >= 1 - shares["none"]:
            nothing = np.zeros((SIZE, SIZE))
            nothing[SIZE // 2, SIZE // 2] = 1
            return nothing
        if kind < shares["small"]:
            one = between(0.2, 1.0, first)
            two = one if round_ < shares["round"] else between(0.2, one, second)
            return gaussian(one * wider**2, two * wider**2, math.pi * angle)
        if kind < shares["small"] + shares["disk"]:
            return disk(wider * between(0.5, 2.5, first))
        if kind < shares["small"] + shares["disk"] + shares["motion"]:
            return motion(wider * between(1.0, 9.0, first), math.pi * angle)
        one = between(1.0, 2.5 * scale, first)
        return gaussian(one * wider**2, between(1.0, one, second) * wider**2, math.pi * angle)

    return kernel(1.0), kernel(between(0.8, 1.25, factor) if wrong < shares["wrong"] else 1.0)


def transfer(kernels, scale):
    """The first eight features of src/degrade/features.rs."""
    y, x = np.mgrid[:SIZE, :SIZE]
    features = []
    for share in (0.5, 1.0):
        for direction in range(4):
            f = share * math.pi / scale
            u, v = f * math.cos(direction * math.pi / 4), f * math.sin(direction * math.pi / 4)
            features.append(np.abs((kernels * np.exp(-1j * (u * x + v * y))).sum((1, 2))) - 0.5)
    return np.stack(features, 1)


class Bank:
    """Kernels to draw from, with what the network is told of them."""

    def __init__(self, count, scale, shares, seed, device):
        random = np.random.default_rng(seed)
        drawn = [draw_kernel(random, scale, shares) for _ in range(count)]
        real, told = (np.stack(kernels) for kernels in zip(*drawn))
        on_device = lambda t: torch.from_numpy(t).float().to(device)
        self.kernels, self.told, self.features = on_device(real), on_device(told), on_device(transfer(told, scale))
        self.device = device

    def draw(self, count):
        which = (torch.rand(count, device=self.device) * len(self.kernels)).long()
        return self.kernels[which], self.told[which], self.features[which]


class Jpeg:
    """What a JPEG of any quality, with the tables of the standard's Annex K, leaves of pictures whose sides
    are multiples of 16; the order of the 64 steps is that of rows."""

    LIGHTNESS = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
        18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
    COLOUR = """17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99""" + 32 * " 99"

    def __init__(self, device):
        table = lambda text: torch.tensor([float(v) for v in text.split()], device=device).view(8, 8)
        self.tables = torch.stack([table(self.LIGHTNESS), table(self.COLOUR), table(self.COLOUR)])
        k, x = torch.arange(8.0, device=device)[:, None], torch.arange(8.0, device=device)[None]
        self.dct = torch.cos((2 * x + 1) * k * math.pi / 16) / 2
        self.dct[0] /= 2**0.5
        self.ycc = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], device=device)
        self.rgb = torch.linalg.inv(self.ycc.cpu()).to(device)

    def steps(self, quality):
        """n × 3 × 8 × 8 for n qualities."""
        factor = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
        return (self.tables * factor.view(-1, 1, 1, 1) + 0.5001).floor().clamp(1, 255)

    def plane(self, t, steps):
        n, h, w = t.shape
        blocks = t.view(n, h // 8, 8, w // 8, 8).transpose(2, 3)
        steps = steps[:, None, None]
        made = self.dct.T @ ((self.dct @ blocks @ self.dct.T / steps).round() * steps) @ self.dct
        return made.transpose(2, 3).reshape(n, h, w)

    def __call__(self, rgb, steps, halved):
        """n × 3 × h × w in [0, 1]; where `halved` (n) colour differences are kept at half the size."""
        ycc = torch.einsum("ij,njhw->nihw", self.ycc, rgb * 255).round()
        light = self.plane(ycc[:, 0] - 128, steps[:, 0]) + 128
        planes = [light]
        for c in (1, 2):
            small = F.avg_pool2d(ycc[:, c], 2).round()
            small = self.plane(small, steps[:, c]).repeat_interleave(2, 1).repeat_interleave(2, 2)
            planes.append(torch.where(halved.view(-1, 1, 1), small, self.plane(ycc[:, c], steps[:, c])))
        return eight_bits(torch.einsum("ij,njhw->nihw", self.rgb, torch.stack(planes, 1)) / 255)


# The degradation on a torus, as products of spectra


def cubic(x):
    a = np.abs(x)
    return np.where(a <= 1, (1.5 * a - 2.5) * a * a + 1, np.where(a < 2, ((-0.5 * a + 2.5) * a - 4) * a + 2, 0))


def filter_spectrum(offsets, weights, size, device):
    line = np.zeros(size)
    np.add.at(line, np.asarray(offsets) % size, weights)
    line = np.fft.fft(line)
    return torch.from_numpy(np.outer(line, line)).to(torch.complex64).to(device)


class Grid:
    """HR of side `size` and its LR of 1/scale."""

    def __init__(self, size, scale, downsample, device):
        self.size, self.scale, self.low = size, scale, size // scale
        assert size % scale == 0
        r = np.arange(-3 * scale, 4 * scale)
        centre = (scale - 1) / 2
        weights = cubic((centre - r) / scale) / scale
        resize = filter_spectrum(-r, weights / weights.sum(), size, device)
        self.down = resize if downsample == "bicubic" else None
        up = lambda offset: filter_spectrum(r, cubic((r + offset) / scale - offset), size, device)
        self.bicubic_up = up(0.5)
        self.aligned_up = up(0.5) if downsample == "bicubic" else up(0.0)
        self.rows = (SIZE // 2 - torch.arange(SIZE, device=device)) % size

    def transfer(self, kernels):
        """The spectrum of D before subsampling: n × 1 × size × size."""
        placed = torch.zeros(len(kernels), self.size, self.size, device=kernels.device)
        placed[:, self.rows[:, None], self.rows[None, :]] = kernels
        spectrum = torch.fft.fft2(placed)
        return (spectrum if self.down is None else spectrum * self.down)[:, None]

    def fold(self, spectrum):
        n, c = spectrum.shape[:2]
        return spectrum.view(n, c, self.scale, self.low, self.scale, self.low).mean((2, 4))

    def tile(self, spectrum):
        return spectrum.repeat(1, 1, self.scale, self.scale)

    def degrade(self, image, k):
        return torch.fft.ifft2(self.fold(k * torch.fft.fft2(image))).real

    def upscale(self, low, up):
        """By the filter `up`, bicubic_up or aligned_up."""
        return torch.fft.ifft2(up * self.tile(torch.fft.fft2(low))).real


def polynomial_plain(gain, lam, weighted, steps):
    dot = lambda a: (weighted * a).sum((2, 3), keepdim=True)
    s = q = torch.ones_like(gain)
    z, nq = torch.zeros_like(gain), gain
    residual = direction = dot(gain)
    for _ in range(steps):
        alpha = residual / (dot(nq * nq) + lam * direction + 1e-30)
        z = z + alpha * q
        s = s - alpha * (nq + lam * q)
        ns = gain * s
        following = dot(s * ns)
        ratio = following / (residual + 1e-30)
        q, nq = s + ratio * q, ns + ratio * nq
        residual, direction = following, following + ratio * ratio * direction
    return z


class Fused:
    """Where Triton is there, and gives what PyTorch gives: many small steps as one."""

    ready = False


if triton is not None:

    @triton.jit
    def polynomial_kernel(gain, lam, weighted, out, size, steps, BLOCK: tl.constexpr):
        row = tl.program_id(0)
        at = tl.arange(0, BLOCK)
        inside = at < size
        g = tl.load(gain + row * size + at, mask=inside, other=0.0)
        w = tl.load(weighted + row * size + at, mask=inside, other=0.0)
        l = tl.load(lam + row)
        s = tl.full([BLOCK], 1.0, tl.float32)
        q = s
        z = tl.zeros([BLOCK], tl.float32)
        nq = g
        residual = tl.sum(w * g, axis=0)
        direction = residual
        for _ in range(steps):
            alpha = residual / (tl.sum(w * nq * nq, axis=0) + l * direction + 1e-30)
            z += alpha * q
            s -= alpha * (nq + l * q)
            ns = g * s
            following = tl.sum(w * s * ns, axis=0)
            ratio = following / (residual + 1e-30)
            q = s + ratio * q
            nq = ns + ratio * nq
            direction = following + ratio * ratio * direction
            residual = following
        tl.store(out + row * size + at, z, mask=inside)

    @triton.jit
    def scaled_relu_kernel(x, scale, bias, y, pixels, ROWS: tl.constexpr, C: tl.constexpr):
        first = tl.program_id(0) * ROWS
        channel = tl.arange(0, C)
        picture = first // pixels
        at = (first + tl.arange(0, ROWS))[:, None] * C + channel[None, :]
        s = tl.load(scale + picture * C + channel).to(tl.float32)
        b = tl.load(bias + picture * C + channel).to(tl.float32)
        z = tl.load(x + at).to(tl.float32) * s[None, :] + b[None, :]
        tl.store(y + at, tl.maximum(z, 0.0).to(y.dtype.element_ty))

    @triton.jit
    def scaled_relu_back_kernel(x, scale, bias, grad, gx, gs, gb, pixels, ROWS: tl.constexpr, TURNS: tl.constexpr, C: tl.constexpr):
        first = tl.program_id(0) * ROWS * TURNS
        channel = tl.arange(0, C)
        picture = first // pixels
        s = tl.load(scale + picture * C + channel).to(tl.float32)
        b = tl.load(bias + picture * C + channel).to(tl.float32)
        of_scale = tl.zeros([C], tl.float32)
        of_bias = tl.zeros([C], tl.float32)
        for turn in range(TURNS):
            at = (first + turn * ROWS + tl.arange(0, ROWS))[:, None] * C + channel[None, :]
            v = tl.load(x + at).to(tl.float32)
            g = tl.load(grad + at).to(tl.float32)
            g = tl.where(v * s[None, :] + b[None, :] > 0, g, 0.0)
            tl.store(gx + at, (g * s[None, :]).to(gx.dtype.element_ty))
            of_scale += tl.sum(g * v, axis=0)
            of_bias += tl.sum(g, axis=0)
        tl.atomic_add(gs + picture * C + channel, of_scale)
        tl.atomic_add(gb + picture * C + channel, of_bias)


def polynomial_fused(gain, lam, weighted, steps):
    n, _, h, w = gain.shape
    out = torch.empty_like(gain)
    block = 1 << (h * w - 1).bit_length()
    polynomial_kernel[(n,)](
        gain.contiguous(), lam.contiguous(), weighted.contiguous(), out, h * w, steps, BLOCK=block, num_warps=16
    )
    return out


@torch.no_grad()
def polynomial(gain, lam, seen, steps):
    """Conjugate gradients of src/degrade/least_squares.rs: p with z = p · s, where s has |s|² = `seen`."""
    return (polynomial_fused if Fused.ready else polynomial_plain)(gain, lam, seen.sum(1, keepdim=True), steps)


def power(spectrum):
    return spectrum.real**2 + spectrum.imag**2


class Solver:
    """The least-squares start and the data steps of some LR pictures."""

    def __init__(self, grid, k, low, lam, mu):
        self.grid, self.k, self.lam, self.mu = grid, k, lam, mu
        self.back = k.conj()
        self.y = torch.fft.fft2(low)
        self.gain = grid.fold(power(k))

    @torch.no_grad()
    def start(self):
        grid = self.grid
        s = self.y * (1 - grid.fold(self.k * grid.aligned_up))
        z = polynomial(self.gain, self.lam, power(s), 25) * s
        return torch.fft.ifft2(grid.aligned_up * grid.tile(self.y) + self.back * grid.tile(z)).real

    def data_step(self, made):
        """To the end: what ten steps from where the one before ended are near to."""
        s = self.y - self.grid.fold(self.k * torch.fft.fft2(made))
        return made + torch.fft.ifft2(self.back * self.grid.tile(s / (self.gain + self.mu))).real


class Matrices:
    """The same for any scale, by a matrix along each axis: HR of side `size` and its LR, as tori."""

    def __init__(self, size, scale, downsample, device):
        self.size, self.scale, self.low = size, scale, round(size / scale)
        assert abs(size / scale - self.low) < 1e-6, (size, scale)
        down, up = np.zeros((self.low, size)), np.zeros((size, self.low))
        for i in range(self.low):
            if downsample == "bicubic":
                u = (i + 0.5) * scale - 0.5
                j = np.arange(math.floor(u - 2 * scale), math.ceil(u + 2 * scale) + 1)
                w = cubic((u - j) / scale)
                np.add.at(down[i], j % size, w / w.sum())
            else:
                down[i, math.floor(i * scale + 0.5 + 1e-9) % size] = 1
        for j in range(size):
            u = (j + 0.5) / scale - 0.5 if downsample == "bicubic" else j / scale
            m = np.arange(math.floor(u) - 2, math.floor(u) + 4)
            np.add.at(up[j], m % self.low, cubic(u - m))
        matrix = lambda m: torch.from_numpy(m).float().to(device)
        self.down, self.up = matrix(down), matrix(up)
        self.rows = (SIZE // 2 - torch.arange(SIZE, device=device)) % size

    def transfer(self, kernels):
        placed = torch.zeros(len(kernels), self.size, self.size, device=kernels.device)
        placed[:, self.rows[:, None], self.rows[None, :]] = kernels
        return torch.fft.rfft2(placed)[:, None]

    def blur(self, image, k):
        return torch.fft.irfft2(k * torch.fft.rfft2(image), s=image.shape[2:])

    def degrade(self, image, k):
        return self.down @ self.blur(image, k) @ self.down.T

    def adjoint(self, low, k):
        return self.blur(self.down.T @ low @ self.down, k.conj())

    def normal(self, low, k):
        """D Dᵀ, where `k` is the power of the blur's spectrum."""
        return self.degrade(self.down.T @ low @ self.down, k)


def gradients_of(normal, lam, s, steps, lengths=None):
    """z of conjugate gradients for `normal` + lam; its step lengths, or by those that are given."""
    made = [] if lengths is None else lengths
    dot = lambda a, b: (a * b).sum((1, 2, 3), keepdim=True)
    q, nq = s, normal(s)
    z = torch.zeros_like(s)
    if lengths is None:
        residual = direction = dot(s, nq)
    for step in range(steps):
        if lengths is None:
            alpha = residual / (dot(nq, nq) + lam * direction + 1e-30)
            made.append(alpha)
        else:
            alpha = made[2 * step]
        z = z + alpha * q
        if step + 1 == steps:
            break
        s = s - alpha * (nq + lam * q)
        ns = normal(s)
        if lengths is None:
            following = dot(s, ns)
            ratio = following / (residual + 1e-30)
            residual, direction = following, following + ratio * ratio * direction
            made.append(ratio)
        else:
            ratio = made[2 * step + 1]
        q, nq = s + ratio * q, ns + ratio * nq
    return z, made


class Steps(torch.autograd.Function):
    """Conjugate gradients: for given step lengths a polynomial of `normal`, which is its own adjoint."""

    @staticmethod
    def forward(ctx, s, normal, lam, steps):
        z, ctx.lengths = gradients_of(normal, lam, s, steps)
        ctx.rest = (normal, lam, steps)
        return z

    @staticmethod
    def backward(ctx, grad):
        normal, lam, steps = ctx.rest
        return gradients_of(normal, lam, grad, steps, ctx.lengths)[0], None, None, None


class MatrixSolver:
    """As Solver, on Matrices."""

    def __init__(self, grid, k, low, lam, mu):
        self.grid, self.k, self.low, self.lam, self.mu = grid, k, low, lam, mu
        both = power(k)
        self.normal = lambda t: grid.normal(t, both)

    def solved(self, made, lam, steps):
        z = Steps.apply(self.low - self.grid.degrade(made, self.k), self.normal, lam, steps)
        return made + self.grid.adjoint(z, self.k)

    @torch.no_grad()
    def start(self):
        return self.solved(self.grid.up @ self.low @ self.grid.up.T, self.lam, 25)

    def data_step(self, made):
        """Twice as many steps as are made from where the one before ended."""
        return self.solved(made, self.mu, 16)


def eight_bits(low):
    return (low.clamp(0, 1) * 255).round() / 255


# The kernel-aware network


class ScaledRelu(torch.autograd.Function):
    """relu(scale · x + bias) of n × c × h × w, channels last; scale and bias are n × c."""

    @staticmethod
    def forward(ctx, x, scale, bias):
        ctx.save_for_backward(x, scale, bias)
        n, c, h, w = x.shape
        if Fused.ready and h * w % 512 == 0:
            y = torch.empty_like(x)
            scaled_relu_kernel[(n * h * w // 64,)](x, scale, bias, y, h * w, ROWS=64, C=c)
            return y
        return torch.addcmul(bias[:, :, None, None], x, scale[:, :, None, None]).relu_()

    @staticmethod
    def backward(ctx, grad):
        x, scale, bias = ctx.saved_tensors
        n, c, h, w = x.shape
        if Fused.ready and h * w % 512 == 0:
            grad = grad.contiguous(memory_format=torch.channels_last)
            gx = torch.empty_like(x)
            gs, gb = torch.zeros(2, n, c, device=x.device)
            scaled_relu_back_kernel[(n * h * w // 512,)](
                x, scale, bias, grad, gx, gs, gb, h * w, ROWS=64, TURNS=8, C=c
            )
            return gx, gs.to(scale.dtype), gb.to(bias.dtype)
        wide = lambda t: t[:, :, None, None]
        grad = torch.where(torch.addcmul(wide(bias), x, wide(scale)) > 0, grad, torch.zeros_like(grad))
        return grad * wide(scale), (grad * x).sum((2, 3)), grad.sum((2, 3))


def try_fused():
    """Whether Triton's kernels give what PyTorch's operations give, here."""
    if triton is None:
        return
    try:
        n, h = 3, 80
        gain, seen, lam = torch.rand(n, 1, h, h, device="cuda"), torch.rand(n, 1, h, h, device="cuda"), torch.full((n, 1, 1, 1), 0.05, device="cuda")
        a, b = polynomial_plain(gain, lam, seen, 8), polynomial_fused(gain, lam, seen, 8)
        off = [((a - b).norm() / a.norm()).item()]
        x = torch.randn(n, 64, 32, 32, device="cuda", dtype=torch.float16).contiguous(memory_format=torch.channels_last)
        scale, bias, grad = 1 + torch.rand(n, 64, device="cuda").half(), torch.randn(n, 64, device="cuda").half(), torch.randn_like(x)
        made = []
        for Fused.ready in (False, True):
            leaves = [t.clone().requires_grad_() for t in (x, scale, bias)]
            y = ScaledRelu.apply(*leaves)
            made.append([y, *torch.autograd.grad(y, leaves, grad)])
        off += [((a.float() - b.float()).norm() / a.float().norm()).item() for a, b in zip(*made)]
        Fused.ready = max(off) < 5e-3
        print("fused:", Fused.ready, [f"{v:.1e}" for v in off], flush=True)
    except Exception as error:
        Fused.ready = False
        print("fused: not here:", repr(error)[:300], flush=True)


def own_weights(name, inputs):
    """Whether the weights are those of a first layer that every picture has for itself."""
    return "conv1." in name and inputs == 3


def stored(name, t):
    """A tensor of a file as one row (of each feature): of the first layer's weights (rows, columns, inputs,
    outputs) where it follows the blur in all of them, of others' (outputs, rows, columns, inputs), as its
    operation wants them."""
    lead = t.dim() - (4 if "weight" in name else 1)
    if "weight" in name:
        order = (2, 3, 1, 0) if own_weights(name, t.shape[lead + 1]) else (0, 2, 3, 1)
        t = t.permute(*range(lead), *(lead + i for i in order))
    return t.reshape(*t.shape[:lead], -1)


def unstored(name, t, shape):
    if "weight" in name:
        lead = len(shape) - 4
        o, i, h, w = shape[lead:]
        sizes, back = ((h, w, i, o), (3, 2, 0, 1)) if own_weights(name, i) else ((o, h, w, i), (0, 3, 1, 2))
        t = t.reshape(*shape[:lead], *sizes).permute(*range(lead), *(lead + k for k in back))
    return t.reshape(shape).contiguous()


def folded(x, side):
    """n × 3 × h × w to n × 3 side² × h / side × w / side: rows of a cell, columns, colours."""
    n, c, h, w = x.shape
    x = x.view(n, c, h // side, side, w // side, side).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, side * side * c, h // side, w // side)


def unfolded(x, side):
    n, c, h, w = x.shape
    x = x.view(n, side, side, c // side**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // side**2, h * side, w * side)


def fresh(side, passes):
    """Random weights of a network on cells of `side` × `side` pixels, which change nothing yet."""
    channels = [3 * side * side] + [64] * (LAYERS - 1) + [3 * side * side]
    tensors = {}
    for l, (i, o) in enumerate(zip(channels, channels[1:]), 1):
        size = (2 / (9 * i)) ** 0.5 * (0.03 if l == LAYERS else 1)
        tensors[f"conv{l}.weight"], tensors[f"conv{l}.bias"] = size * torch.randn(o, i, 3, 3), torch.zeros(o)
        for p in range(passes):
            prefix = f"pass{p + 1}." if p else ""
            wide = side == 1 and l in (1, LAYERS)
            tensors[f"{prefix}conv{l}." + ("weight.fit" if wide else "scale.fit")] = torch.zeros(
                *((FEATURES, o, i, 3, 3) if wide else (FEATURES, o))
            )
            tensors[f"{prefix}conv{l}.bias.fit"] = torch.zeros(FEATURES, o)
    return tensors, {"architecture": "-".join(map(str, channels))}


class Aware:
    """Passes whose parameters follow the blur, as in src/network/fit.rs, with the data steps between."""

    def __init__(self, tensors, passes, device, dtype):
        self.dtype, self.passes = dtype, passes
        have = 1 + max((int(name[4]) - 1 for name in tensors if name.startswith("pass")), default=0)
        prefix = lambda p: f"pass{p + 1}." if p else ""
        layers = range(1, LAYERS + 1)
        self.base_names = [f"conv{l}.{kind}" for l in layers for kind in ("weight", "bias")]
        # Where it sees cells of several pixels, the ends follow the blur as the layers between do.
        self.side = math.isqrt(tensors["conv1.weight"].shape[1] // 3)
        full = lambda l: l in (1, LAYERS) and self.side == 1
        self.fit_names = [f"conv{l}.{kind}.fit" for l in layers for kind in ("weight" if full(l) else "scale", "bias")]
        self.shapes = {n: tensors[n].shape for n in self.base_names + self.fit_names}
        base = torch.cat([stored(n, tensors[n]) for n in self.base_names])
        # A pass more begins as the last one.
        of = lambda p: torch.cat([stored(n, tensors[prefix(min(p, have - 1)) + n]) for n in self.fit_names], 1)
        self.leaves = [t.to(device).requires_grad_() for t in [base] + [of(p) for p in range(passes)]]
        self.base_sizes = [self.shapes[n].numel() for n in self.base_names]
        self.fit_sizes = [self.shapes[n].numel() // FEATURES for n in self.fit_names]
        self.prefix = prefix

    def matrices(self):
        """Where the weights of layers are in the first leaf, and as what matrix."""
        begins = np.cumsum([0] + self.base_sizes[:-1])
        made = []
        for begin, size, name in zip(begins, self.base_sizes, self.base_names):
            if "weight" in name:
                outputs, inputs = self.shapes[name][:2]
                sides = (outputs, size // outputs)
                made.append((begin, *(sides[::-1] if own_weights(name, inputs) else sides)))
        return made

    def tensors(self, leaves):
        made = {}
        for name, part in zip(self.base_names, leaves[0].split(self.base_sizes)):
            made[name] = unstored(name, part, self.shapes[name])
        for p in range(self.passes):
            for name, part in zip(self.fit_names, leaves[1 + p].split(self.fit_sizes, 1)):
                made[self.prefix(p) + name] = unstored(name, part, self.shapes[name])
        return made

    def one(self, x, features, p, base):
        """Pass `p` with the network's own parameters `base`."""
        n, _, h, w = x.shape
        cast = lambda t: t.to(self.dtype)
        fit = self.leaves[1 + p]
        follow = [cast(t).contiguous() for t in (features @ fit).split(self.fit_sizes, 1)]
        if self.side > 1:
            a = cast(folded(x, self.side)).contiguous(memory_format=torch.channels_last)
            for l in range(LAYERS):
                inputs, scale, bias = a.shape[1], 1 + follow[2 * l], base[2 * l + 1] + follow[2 * l + 1]
                c = F.conv2d(a, base[2 * l].view(-1, 3, 3, inputs).permute(0, 3, 1, 2), padding=1)
                if l + 1 < LAYERS:
                    a = ScaledRelu.apply(c, scale, bias)
            c = c * scale[:, :, None, None] + bias[:, :, None, None]
            return x + unfolded(c.float(), self.side)
        # The first layer: every picture has its own weights, on 27 values a pixel.
        padded = F.pad(cast(x), (1, 1, 1, 1)).permute(0, 2, 3, 1)
        shifts = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
        columns = torch.cat(shifts + [padded.new_zeros(1, 1, 1, 1).expand(n, h, w, 5)], 3)
        weight = F.pad((base[0] + follow[0]).view(n, 27, 64), (0, 0, 0, 5))
        a = torch.baddbmm((base[1] + follow[1])[:, None], columns.view(n, h * w, 32), weight).relu()
        a = a.view(n, h, w, 64).permute(0, 3, 1, 2)
        for l in range(1, LAYERS - 1):
            c = F.conv2d(a, base[2 * l].view(64, 3, 3, 64).permute(0, 3, 1, 2), padding=1)
            a = ScaledRelu.apply(c, 1 + follow[2 * l], base[2 * l + 1] + follow[2 * l + 1])
        # The last layer: with every feature's weights, then mixed.
        begin = sum(self.fit_sizes[:-2])
        every = torch.cat([base[-2][None], cast(fit[:, begin : begin + self.fit_sizes[-2]])]).view(-1, 3, 3, 64)
        every = F.pad(every, (0, 0, 0, 0, 0, 0, 0, 7)).permute(0, 3, 1, 2)
        o = F.conv2d(a, every, padding=1).permute(0, 2, 3, 1).reshape(n, h * w, 40)
        mix = torch.cat([torch.ones_like(features[:, :1]), features], 1)
        mix = (mix[:, :, None, None] * torch.eye(3, 8, device=x.device)).reshape(n, 33, 8)
        out = torch.bmm(o, cast(F.pad(mix, (0, 0, 0, 7))))[:, :, :3]
        out = (out + (base[-1] + follow[-1])[:, None]).float().view(n, h, w, 3)
        return x + out.permute(0, 3, 1, 2)

    def run(self, solver, features, start):
        made = []
        x = start
        base = self.leaves[0].to(self.dtype).split(self.base_sizes)
        for p in range(self.passes):
            x = solver.data_step(self.one(x, features, p, base))
            made.append(x)
        return made


def orthogonal(u):
    """Near U Vᵀ of each matrix's U S Vᵀ, by five steps of Newton and Schulz's iteration (n × rows × columns,
    rows at most columns)."""
    u = u / (u.flatten(1).norm(dim=1)[:, None, None] + 1e-20)
    for _ in range(5):
        a = u @ u.transpose(1, 2)
        u = 3.4445 * u + (-4.7750 * a + 2.0315 * (a @ a)) @ u
    return u


class Adam:
    """On a list of tensors, with the norm of the gradient clipped and an average kept; no waiting.

    `matrices` are (begin, rows, columns) in the first tensor: these go by their momentum made orthogonal
    (Jordan, Muon, 2024), each value by as much as Adam would move it.
    """

    def __init__(self, params, clip, ema, unit=1.0, matrices=()):
        self.params, self.clip, self.ema, self.unit = params, clip, ema, unit
        self.alike = {}
        for begin, rows, columns in matrices:
            self.alike.setdefault((rows, columns), []).append(begin)
        if matrices:
            self.momentum = torch.zeros_like(params[0])
        zeros = lambda: [torch.zeros_like(p) for p in params]
        self.m, self.v = zeros(), zeros()
        self.average = [p.detach().clone() for p in params]
        device = params[0].device
        self.rate = torch.zeros((), device=device)
        self.step = torch.zeros((), device=device)
        self.skipped = torch.zeros((), device=device)

    @torch.no_grad()
    def update(self, grads):
        """`grads` are `unit` times the gradients."""
        norms = torch.stack(torch._foreach_norm(grads))
        norm = norms.norm() / self.unit
        good = torch.isfinite(norm)
        self.skipped += (~good).float()
        factor = torch.where(norm > self.clip, self.clip / norm, torch.ones_like(norm)) / self.unit
        grads = [torch.where(good, g * factor, torch.zeros_like(g)) for g in grads]
        self.step += 1
        torch._foreach_mul_(self.m, 0.9)
        torch._foreach_add_(self.m, grads, alpha=0.1)
        torch._foreach_mul_(self.v, 0.999)
        torch._foreach_addcmul_(self.v, grads, grads, value=0.001)
        first, second = 1 - 0.9**self.step, 1 - 0.999**self.step
        moves = [(m / first) / ((v / second).sqrt() + 1e-8) for m, v in zip(self.m, self.v)]
        if self.alike:
            self.momentum.mul_(0.95).add_(grads[0])
            ahead = grads[0] + 0.95 * self.momentum
            for (rows, columns), begins in self.alike.items():
                cut = lambda t, b: t[b : b + rows * columns]
                u = torch.stack([cut(ahead, b).view(rows, columns) for b in begins])
                u = orthogonal(u if rows <= columns else u.transpose(1, 2))
                u = (u if rows <= columns else u.transpose(1, 2)) * (0.2 * max(rows, columns) ** 0.5)
                for b, one in zip(begins, u):
                    cut(moves[0], b).copy_(one.reshape(-1))
        for p, move, average in zip(self.params, moves, self.average):
            p -= self.rate * move
            average.lerp_(p, 1 - self.ema)


def lambda_of(sigma):
    return 1e-3 * (1 + 2.7 * (sigma * sigma - 1).clamp(min=0))


class AwareStep:
    def __init__(self, args, meta, tensors, device, dtype):
        scales = json.loads(args.scales) if args.scales else [int(meta["scale"])]
        self.shares = {"none": args.none, "small": args.small, "round": 0.5, "disk": args.disk, "motion": args.motion, "wrong": args.wrong}
        self.photos = Photos(args.photos, args.crop, device)
        self.jpeg = Jpeg(device)
        kind = Matrices if args.scales else Grid
        self.solver = MatrixSolver if args.scales else Solver
        self.grids = [kind(args.crop, scale, meta["downsample"], device) for scale in scales]
        self.banks = [Bank(args.kernels, scale, self.shares, args.seed + i, device) for i, scale in enumerate(scales)]
        self.variants = len(scales)
        self.net = Aware(tensors, args.passes, device, dtype)
        self.args, self.device, self.dtype = args, device, dtype
        # So that half precision keeps small gradients.
        self.unit = (2.0**17 if args.squared else 2.0**13) if dtype == torch.float16 else 1.0
        self.adam = Adam(self.net.leaves, 0.5, args.ema, self.unit, self.net.matrices() if args.muon else ())
        self.losses = torch.zeros(args.passes + 1, device=device)

    @torch.no_grad()
    def case(self, count, variant):
        args, grid = self.args, self.grids[variant]
        high = self.photos.crops(count, args.crop)
        kernels, told, seen = self.banks[variant].draw(count)
        rand = lambda: torch.rand(count, 1, 1, 1, device=self.device)
        sigma = torch.where(rand() < args.noise, 1 + 7 * rand(), torch.zeros_like(rand()))
        share = torch.zeros_like(sigma)
        low = grid.degrade(high, grid.transfer(kernels))
        low = eight_bits(low + sigma / 255 * torch.randn_like(low))
        if args.jpeg:
            steps = self.jpeg.steps((60 + 35 * rand()).round())
            saved = rand() < args.jpeg
            low = torch.where(saved, self.jpeg(low, steps, rand().view(-1) < 0.5), low)
            lost = 0.9 * steps[:, :1].mean((2, 3), keepdim=True).sqrt()
            share = torch.where(saved, lost * lost / (sigma * sigma + lost * lost), share)
            sigma = torch.where(saved, torch.hypot(sigma, lost), sigma)
        lam = lambda_of(sigma)
        # As NoiseLevel::mu_over_lambda in src/adapt/course.rs.
        mu = (2 + share) * lam
        k = grid.transfer(told)
        noise = torch.log10(lam.view(-1, 1) / 1e-3) / 2
        features = torch.cat([seen, torch.full_like(noise, (grid.scale - 2) / 2), noise], 1)
        solver = self.solver(grid, k, low, lam, mu)
        return high, solver, features, solver.start()

    def __call__(self, variant=0):
        high, solver, features, start = self.case(self.args.batch, variant)
        b = self.args.border
        inside = lambda t: t[:, :, b:-b, b:-b]
        made = self.net.run(solver, features, start)
        off = [inside(x) - inside(high) for x in made]
        losses = [(o * o if self.args.squared else o.abs()).mean() for o in off]
        weights = [0.15] * (len(losses) - 1) + [1.0]
        loss = sum(w * l for w, l in zip(weights, losses)) * self.unit
        grads = torch.autograd.grad(loss, self.adam.params)
        self.adam.update(list(grads))
        with torch.no_grad():
            before = (inside(start) - inside(high)).abs().mean()
            self.losses += torch.stack([before] + [o.detach().abs().mean() for o in off])

    def set_rate(self, share):
        self.adam.rate.fill_(self.args.rate * share)

    def file(self):
        return self.net.tensors(self.adam.average), {"passes": str(self.args.passes), "fit": "transfer"}


# Meta-transfer training: every task its own weights, as a group of one convolution


# What a squared error counts beside an absolute one: it pulls as much at 5 of 255.
SQUARED = 25


def full(t):
    return t if t.dtype == torch.float64 else t.float()


class Tasks:
    """Gradients and Hessian-vector products of n networks side by side, as in src/network.

    Their parameters are one row: layer by layer the weights (tasks, outputs, rows, columns, inputs), then
    the biases (tasks, outputs). Pictures are h × w × n × 3; where there are 3 channels, the network has
    `ends`.
    """

    def __init__(self, n, dtype, unit, ends, middle=64):
        self.n, self.dtype, self.unit, self.ends = n, dtype, unit, ends
        self.channels = [ends] + [middle] * (LAYERS - 1) + [ends]
        self.sizes = [s for i, o in zip(self.channels, self.channels[1:]) for s in (9 * i * o, o)]

    def parts(self, row, n=None):
        return row.split([s * (self.n if n is None else n) for s in self.sizes])

    def spread(self, row):
        """The same parameters for each task."""
        return torch.cat([p.repeat(self.n) for p in self.parts(row, 1)])

    def mean(self, row):
        return torch.cat([p.view(self.n, -1).mean(0) for p in self.parts(row)])

    def by_layer(self, values):
        """One value a layer to one a parameter."""
        counts = [self.n * (self.sizes[2 * l] + self.sizes[2 * l + 1]) for l in range(LAYERS)]
        return torch.cat([values[l].expand(counts[l]) for l in range(LAYERS)])

    def layer_sums(self, row):
        counts = [self.n * (self.sizes[2 * l] + self.sizes[2 * l + 1]) for l in range(LAYERS)]
        return torch.stack([p.sum() for p in row.split(counts)])

    def networks(self, row):
        parts = self.parts(row.to(self.dtype))
        weights = [
            parts[2 * l].view(self.n * self.channels[l + 1], 3, 3, self.channels[l]).permute(0, 3, 1, 2)
            for l in range(LAYERS)
        ]
        return weights, [parts[2 * l + 1].view(1, -1, 1, 1) for l in range(LAYERS)]

    def conv(self, a, weight):
        return F.conv2d(a, weight, padding=1, groups=self.n)

    def back(self, delta, a, weight, which):
        """The gradient with respect to the input (0) or the weights (1)."""
        mask = [which == 0, which == 1, False]
        made = torch.ops.aten.convolution_backward(
            delta, a, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], self.n, mask
        )[which]
        return made if which == 0 else made.permute(0, 2, 3, 1).reshape(-1)

    def picture(self, t):
        """h × w × n × 3 for the network."""
        h, w, n, c = t.shape
        t = F.pad(t, (0, self.ends - c)).to(self.dtype)
        return t.reshape(1, h, w, n * self.ends).permute(0, 3, 1, 2)

    def sums(self, delta):
        """Over all pixels."""
        rows = delta.permute(0, 2, 3, 1).reshape(-1, delta.shape[1])
        return (rows.new_ones(1, len(rows)) @ rows)[0]

    def gradient(self, row, x, y, squared=False):
        """Mean absolute error of each task, its gradient (a row), and what the Hessian needs; if `squared`,
        the gradient of SQUARED times the mean squared error instead."""
        weights, biases = self.networks(row)
        h, w, n, _ = x.shape
        seen = [self.picture(x)]
        for l in range(LAYERS):
            z = self.conv(seen[l], weights[l]) + biases[l]
            if l + 1 < LAYERS:
                seen.append(z.relu_())
        off = x + full(z.permute(0, 2, 3, 1).reshape(h, w, n, self.ends)[..., :3]) - y
        loss = off.abs().mean((0, 1, 3))
        # δ is `unit` × that of the sum over all values.
        delta = self.picture((2 * SQUARED * off if squared else off.sign()) * self.unit)
        count = self.unit * h * w * 3
        deltas, parts = [None] * LAYERS, [None] * (2 * LAYERS)
        for l in reversed(range(LAYERS)):
            deltas[l] = delta
            parts[2 * l] = self.back(delta, seen[l], weights[l], 1)
            parts[2 * l + 1] = self.sums(delta)
            if l:
                delta = torch.ops.aten.threshold_backward(self.back(delta, seen[l], weights[l], 0), seen[l], 0)
        return loss, full(torch.cat(parts)) / count, (weights, seen, deltas, count)

    def hessian(self, trace, direction):
        """H v of the loss."""
        weights, seen, deltas, count = trace
        vw, vb = self.networks(direction)
        gate = torch.ops.aten.threshold_backward
        tangents = [None] * LAYERS
        for l in range(LAYERS - 1):
            z = self.conv(seen[l], vw[l]) + vb[l]
            if l:
                z += self.conv(tangents[l], weights[l])
            tangents[l + 1] = gate(z, seen[l + 1], 0)
        parts, rd = [None] * (2 * LAYERS), None
        for l in reversed(range(LAYERS)):
            made = []
            if l:
                made.append(full(self.back(deltas[l], tangents[l], weights[l], 1)))
            if rd is not None:
                made.append(full(self.back(rd, seen[l], weights[l], 1)))
            parts[2 * l] = sum(made)
            parts[2 * l + 1] = full(torch.zeros_like(vb[l]).view(-1) if rd is None else self.sums(rd))
            if l:
                back = self.back(deltas[l], seen[l], vw[l], 0)
                if rd is not None:
                    back += self.back(rd, seen[l], weights[l], 0)
                rd = gate(back, seen[l], 0)
        return torch.cat(parts) / count


def meta_gradient(tasks, row, rates, outer, train, test, squared=False):
    """The mean over the tasks of Σ outer[k] L_test(θ_k), its gradient with respect to the parameters and the
    rates (K × 8), and the losses; as in src/train/meta.rs. If `squared`, the gradient of the squared test
    errors."""
    trajectory = [tasks.spread(row)]
    steps = [tasks.by_layer(r) for r in rates]
    made, losses = [], []
    for step in steps:
        loss, gradient, trace = tasks.gradient(trajectory[-1], *train)
        losses.append(loss.mean())
        made.append((gradient, trace))
        trajectory.append(trajectory[-1] - step * gradient)
    u = torch.zeros_like(trajectory[0])
    rate_gradient = []
    total = 0.0
    for k in reversed(range(len(steps) + 1)):
        if k < len(steps):
            gradient, trace = made[k]
            rate_gradient.append(-tasks.layer_sums(gradient * u) / tasks.n)
            v = steps[k] * u
            # Of a size that half precision likes.
            size = v.norm() / (8 * tasks.n**0.5) + 1e-20
            u = u - size * tasks.hessian(trace, v / size)
        if outer[k]:
            loss, gradient, _ = tasks.gradient(trajectory[k], *test, squared)
            losses.append(loss.mean())
            total = total + outer[k] * loss.mean()
            u = u + outer[k] * gradient
    of_rates = torch.stack(rate_gradient[::-1]) if steps else torch.zeros_like(rates)
    return total, tasks.mean(u), of_rates, losses


def padded_parameters(tensors, tasks, device):
    parts = []
    for l in range(LAYERS):
        t = tensors[f"conv{l + 1}.weight"]
        more = tasks.channels[l + 1] - t.shape[0]
        t = F.pad(t, (0, 0, 0, 0, 0, tasks.channels[l] - t.shape[1], 0, more))
        parts += [t.permute(0, 2, 3, 1).reshape(-1), F.pad(tensors[f"conv{l + 1}.bias"], (0, more))]
    return torch.cat(parts).to(device)


def bare_parameters(row, tasks, like):
    tensors, parts = {}, tasks.parts(row, 1)
    for l in range(LAYERS):
        o, i = like[f"conv{l + 1}.weight"].shape[:2]
        wide = parts[2 * l].view(tasks.channels[l + 1], 3, 3, tasks.channels[l]).permute(0, 3, 1, 2)
        tensors[f"conv{l + 1}.weight"] = wide[:o, :i].contiguous()
        tensors[f"conv{l + 1}.bias"] = parts[2 * l + 1][:o].contiguous()
    return tensors


def best_ends(args, dtype, device):
    """8 or 64 channels where there are 3, whichever is faster here."""
    if device.type != "cuda":
        return 8
    times = {}
    for ends in (8, 64):
        tasks = Tasks(args.tasks, dtype, 1.0, ends)
        row = torch.randn(sum(tasks.sizes) * args.tasks, device=device) * 0.05
        x = torch.rand(args.patch, args.patch, args.tasks, 3, device=device)
        try:
            for turn in range(6):
                if turn == 3:
                    torch.cuda.synchronize()
                    begun = time.perf_counter()
                tasks.gradient(row, x, x)
            torch.cuda.synchronize()
            times[ends] = time.perf_counter() - begun
        except RuntimeError as error:
            print(f"{ends} channels: {error}"[:200])
    print("channels at the ends:", {e: f"{1e3 * t / 3:.2f} ms" for e, t in times.items()}, flush=True)
    return min(times, key=times.get)


class MetaStep:
    """Tasks of one photo and one blur each: a crop's LR and its son to learn from, places in the crop to be
    judged by."""

    def __init__(self, args, meta, tensors, device, dtype):
        scales = json.loads(args.scales) if args.scales else [int(meta["scale"])]
        crops = json.loads(args.crops) if args.crops else [args.crop] * len(scales)
        shares = {"none": args.none, "small": args.small, "round": 1.0, "disk": 0.0, "motion": 0.0, "wrong": 0.0}
        self.photos = Photos(args.photos, max(crops), device)
        self.banks = [Bank(args.kernels, scale, shares, args.seed + i, device) for i, scale in enumerate(scales)]
        grid = lambda size, scale: Grid(size, scale, meta["downsample"], device)
        self.grids = [(grid(c, s), grid(c // s, s)) for c, s in zip(crops, scales)]
        self.variants = len(scales)
        self.like, self.args, self.device = tensors, args, device
        self.tasks = Tasks(args.tasks, dtype, 2.0**-4, best_ends(args, dtype, device))
        self.row = padded_parameters(tensors, self.tasks, device)
        self.updates = args.updates
        rows = [[args.first_rate]] if args.first_rate else json.loads(meta["rates"])
        rows = [rows[min(k, len(rows) - 1)] for k in range(self.updates)]
        rows = [r * LAYERS if len(r) == 1 else r for r in rows]
        self.logarithms = torch.tensor(rows, device=device).view(-1, LAYERS).clamp(min=args.least_rate).log()
        self.outer = [args.before] + json.loads(args.outer)
        assert len(self.outer) == self.updates + 1
        t = self.tasks
        begins = np.cumsum([0] + t.sizes[:-1])
        matrices = [(begins[2 * l], t.channels[l + 1], 9 * t.channels[l]) for l in range(LAYERS)]
        self.adam = Adam([self.row], args.clip, args.ema, matrices=matrices if args.muon else ())
        self.rates = Adam([self.logarithms], 1e9, args.ema)
        self.losses = torch.zeros(self.updates + sum(1 for v in self.outer if v), device=device)

    @torch.no_grad()
    def case(self, variant):
        args, (grid, below) = self.args, self.grids[variant]
        s, n, device = grid.scale, args.tasks, self.device
        high = self.photos.crops(n, grid.size)
        kernels, _, _ = self.banks[variant].draw(n)
        low = eight_bits(grid.degrade(high, grid.transfer(kernels)))
        son = below.degrade(low, below.transfer(kernels)).clamp(0, 1)
        b = args.border
        inside = lambda t: t[:, :, b:-b, b:-b]
        train = [inside(below.upscale(son, below.bicubic_up)), inside(low)]
        up = grid.upscale(low, grid.bicubic_up)
        edge = 4 * s + 4
        along = torch.arange(args.patch, device=device)
        at = lambda: (torch.rand(n, device=device) * (grid.size - 2 * edge - args.patch + 1)).long()[:, None] + edge + along
        rows, cols = at()[:, None, :, None], at()[:, None, None, :]
        which = torch.arange(n, device=device)[:, None, None, None]
        channel = torch.arange(3, device=device)[None, :, None, None]
        cut = lambda t: t[which, channel, rows, cols]
        test = [cut(up), cut(high)]
        return [[t.permute(2, 3, 0, 1).contiguous() for t in pair] for pair in (train, test)]

    @torch.no_grad()
    def __call__(self, variant=0):
        train, test = self.case(variant)
        rates = self.logarithms.exp()
        _, gradient, gr, losses = meta_gradient(self.tasks, self.row, rates, self.outer, train, test, self.args.squared)
        self.adam.update([gradient])
        self.rates.update([gr * rates])
        self.logarithms.clamp_(min=math.log(self.args.least_rate))
        self.losses += torch.stack(losses)

    def set_rate(self, share):
        self.adam.rate.fill_(self.args.rate * share)
        self.rates.rate.fill_(self.args.learn * share)

    def file(self):
        tensors = bare_parameters(self.adam.average[0], self.tasks, self.like)
        if not self.updates:
            return tensors, {}
        rows = self.rates.average[0].exp().tolist()
        tail = [[v * self.args.tail ** (i + 1) for v in rows[-1]] for i in range(16)]
        return tensors, {"rates": json.dumps(rows + tail), "updates": str(self.updates)}


def train(args, make):
    device = torch.device(args.device)
    dtype = {"half": torch.float16, "bfloat": torch.bfloat16, "float": torch.float32}[args.precision]
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(args.seed)
    if device.type == "cuda" and args.command == "aware" and dtype != torch.float32:
        try_fused()
    begun = time.time()
    tensors, meta = read_safetensors(args.weights)
    if getattr(args, "fresh", None):
        tensors, more = fresh(args.fresh, args.passes)
        meta.update(more)
    step = make(args, meta, dict(tensors), device, dtype)
    print(f"{args.out}: {step.photos.count} photos, {len(step.photos.flat) / 1e6:.1f} Mpx, {time.time() - begun:.1f} s", flush=True)
    choose = np.random.default_rng(args.seed)
    if device.type == "cuda":
        graphs = []
        for variant in range(step.variants):
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(3):
                    step(variant)
            torch.cuda.current_stream().wait_stream(aside)
            graphs.append(torch.cuda.CUDAGraph())
            with torch.cuda.graph(graphs[-1], pool=graphs[0].pool() if variant else None):
                step(variant)
        step.losses.zero_()
        go, wait = lambda: graphs[choose.integers(step.variants)].replay(), torch.cuda.synchronize
        print(f"{args.out}: captured after {time.time() - begun:.1f} s, {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", flush=True)
    else:
        go, wait = lambda: step(choose.integers(step.variants)), lambda: None

    if args.profile:
        with torch.profiler.profile() as profiler:
            step()
            wait()
        used = lambda e: getattr(e, "self_device_time_total", 0) or getattr(e, "self_cuda_time_total", 0)
        for e in sorted(profiler.key_averages(), key=used, reverse=True)[:14]:
            print(f"{used(e) / 1e3:9.3f} ms {e.count:6} x {e.key[:90]}", flush=True)

    def keep(path, done):
        tensors, more = step.file()
        text = {**meta, **more, "name": Path(path).stem}
        for old in ("recipe", "provenance"):
            text.pop(old, None)
        text["provenance"] = f"bench/peers/torch_train.py {args.command}, {done} steps"
        write_safetensors(path, tensors, text)

    first, done, seen, kept, shown = time.time(), 0, 0, time.time(), time.time()
    while True:
        now = time.time() - first
        share = done / args.steps if args.steps else now / args.seconds
        if share >= 1:
            break
        fall = min(1.0, (1 - share) / args.fall)
        step.set_rate(min(1.0, share / args.warm_up) * (fall if args.straight else 0.5 - 0.5 * math.cos(math.pi * fall)))
        for _ in range(args.together):
            go()
        wait()
        done += args.together
        if time.time() - shown > args.every:
            mean = (step.losses / (done - seen)).tolist()
            seen, shown = done, time.time()
            step.losses.zero_()
            print(f"{args.out}: {now:.0f} s, {done} steps, " + " ".join(f"{v:.6f}" for v in mean), flush=True)
        if time.time() - kept > args.keep:
            kept = time.time()
            keep(args.out, done)
    keep(args.out, done)
    mean = (step.losses / max(done - seen, 1)).tolist()
    skipped = step.adam.skipped.item()
    print(f"{args.out}: {done} steps in {time.time() - first:.0f} s, {skipped:.0f} skipped, " + " ".join(f"{v:.6f}" for v in mean), flush=True)


def check():
    """The meta-gradient by hand against autograd through everything, in float64."""
    torch.manual_seed(1)
    n, side, updates = 3, 7, 3
    tasks = Tasks(n, torch.float64, 1.0, 8, 6)
    channels = [3] + [6] * (LAYERS - 1) + [3]
    rand = lambda *shape: torch.randn(*shape, dtype=torch.float64)
    leaves = [rand(o, i, 3, 3) * (1.5 / (9 * i)) ** 0.5 for i, o in zip(channels, channels[1:])]
    leaves += [0.1 * rand(o) for o in channels[1:]] + [0.1 * rand(updates, LAYERS).abs()]
    tensors = {f"conv{l + 1}.weight": leaves[l] for l in range(LAYERS)}
    tensors.update({f"conv{l + 1}.bias": leaves[LAYERS + l] for l in range(LAYERS)})
    pair = lambda: [torch.rand(side, side, n, 3, dtype=torch.float64) for _ in range(2)]
    train_pair, test_pair = pair(), pair()
    outer = [0.2, 0.4, 0.0, 0.6]
    row = padded_parameters(tensors, tasks, "cpu")
    leaves = [t.clone().requires_grad_() for t in leaves]

    def off(w, b, x, y):
        a = x
        for l in range(LAYERS):
            a = F.conv2d(a, w[l], b[l], padding=1)
            a = a.relu() if l + 1 < LAYERS else a
        return x + a - y

    for squared in (False, True):
        _, gradient, gr, _ = meta_gradient(tasks, row, leaves[-1].detach(), outer, train_pair, test_pair, squared)
        gradient = bare_parameters(gradient, tasks, tensors)
        made = [gradient[f"conv{l + 1}.{kind}"] for kind in ("weight", "bias") for l in range(LAYERS)] + [gr]
        total = 0.0
        for task in range(n):
            w, b, r = leaves[:LAYERS], leaves[LAYERS : 2 * LAYERS], leaves[-1]
            cut = lambda p: [t[:, :, task].permute(2, 0, 1)[None] for t in p]

            def judged(k):
                error = off(w, b, *cut(test_pair))
                return outer[k] * (SQUARED * (error**2).mean() if squared else error.abs().mean()) / n

            total = total + judged(0)
            for k in range(updates):
                inner = off(w, b, *cut(train_pair)).abs().mean()
                grads = torch.autograd.grad(inner, w + b, create_graph=True)
                w = [t - r[k][l] * grads[l] for l, t in enumerate(w)]
                b = [t - r[k][l] * grads[LAYERS + l] for l, t in enumerate(b)]
                total = total + judged(k + 1)
        exact = torch.autograd.grad(total, leaves)
        worst = max(((a - b).norm() / (b.norm() + 1e-12)).item() for a, b in zip(made, exact))
        kind = "squared" if squared else "absolute"
        print(f"meta-gradient of the {kind} error against autograd: relative difference {worst:.2e}")
        assert worst < 1e-9, worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check")
    for name in ("aware", "meta"):
        sub = commands.add_parser(name)
        sub.add_argument("weights")
        sub.add_argument("out")
        sub.add_argument("--photos", nargs="+", required=True)
        sub.add_argument("--seconds", type=float, required=True)
        sub.add_argument("--device", default="cuda")
        sub.add_argument("--precision", choices=["half", "bfloat", "float"], default="half")
        sub.add_argument("--rate", type=float, default=4e-4 if name == "aware" else 2e-4)
        sub.add_argument("--warm-up", type=float, default=0.02, help="share of the time")
        sub.add_argument("--fall", type=float, default=0.5, help="share of the time")
        sub.add_argument("--straight", action="store_true", help="fall along a line, not a cosine")
        sub.add_argument("--ema", type=float, default=0.998)
        sub.add_argument("--seed", type=int, default=1)
        sub.add_argument("--kernels", type=int, default=4096, help="how many are drawn from")
        sub.add_argument("--none", type=float, default=0.0, help="share without blur")
        sub.add_argument("--small", type=float, default=0.25 if name == "aware" else 0.15)
        sub.add_argument("--squared", action="store_true", help="learn from the squared error (with meta: of the places that judge)")
        sub.add_argument("--muon", action="store_true", help="layers' weights by orthogonal momentum")
        sub.add_argument("--steps", type=int, help="instead of seconds")
        sub.add_argument("--crop", type=int, default=160 if name == "aware" else 256)
        sub.add_argument("--border", type=int, default=16)
        sub.add_argument("--profile", action="store_true", help="what one step consists of")
        sub.add_argument("--together", type=int, default=10, help="steps without waiting")
        sub.add_argument("--every", type=float, default=10, help="seconds between lines")
        sub.add_argument("--keep", type=float, default=120, help="seconds between files")
    aware, meta = commands.choices["aware"], commands.choices["meta"]
    aware.add_argument("--passes", type=int, default=3)
    aware.add_argument("--fresh", type=int, metavar="SIDE", help="random weights on cells of SIDE × SIDE pixels; of WEIGHTS only what they are for")
    aware.add_argument("--batch", type=int, default=12)
    aware.add_argument("--scales", help="a list of any scales, where weights are for more than one")
    aware.add_argument("--disk", type=float, default=0.08)
    aware.add_argument("--motion", type=float, default=0.12)
    aware.add_argument("--noise", type=float, default=0.12)
    aware.add_argument("--jpeg", type=float, default=0.0, help="share that was saved as JPEG, of quality 60 to 95")
    aware.add_argument("--wrong", type=float, default=0.0, help="share whose blur is told wrong, 0.8 to 1.25 times as wide")
    meta.add_argument("--tasks", type=int, default=16)
    meta.add_argument("--patch", type=int, default=96)
    meta.add_argument("--updates", type=int, default=4)
    meta.add_argument("--outer", default="[0.4, 0.0, 0.0, 0.6]")
    meta.add_argument("--before", type=float, default=0.0, help="what the loss before any update counts beside --outer; alone, with --updates 0 --outer '[]', it is supervised training")
    meta.add_argument("--first-rate", type=float, help="of every layer and update, instead of those of WEIGHTS")
    meta.add_argument("--learn", type=float, default=0.01)
    meta.add_argument("--least-rate", type=float, default=1e-8, help="no rate falls below")
    meta.add_argument("--clip", type=float, default=0.5)
    meta.add_argument("--tail", type=float, default=1.0, help="rates beyond the trained updates, of the one before")
    meta.add_argument("--scales", help="a list of whole ones, where weights are for more than one")
    meta.add_argument("--crops", help="a list of crops' sides, one a scale")
    args = parser.parse_args()
    if args.command == "check":
        check()
    else:
        train(args, AwareStep if args.command == "aware" else MetaStep)


if __name__ == "__main__":
    main()

"""Makes tests/reference/{kernels,resample,network}.safetensors, which tests/reference.rs checks.

Everything is written out here in NumPy and f64, independently of the Rust code: Gaussians, cubic
resizes, blur and subsampling; a small network's output, gradient, Hessian-vector product and
meta-gradients by the formulas of src/network/mod.rs and src/train/meta.rs. The script compares its
own derivatives with finite differences before it writes anything.

python3 -m venv /tmp/venv && /tmp/venv/bin/pip install numpy
/tmp/venv/bin/python tests/reference/make_reference.py [OUT_DIR [SEED]]
"""
import json
import struct
import sys
from math import ceil, floor
from pathlib import Path

import numpy as np

OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
SEED = int(sys.argv[2]) if len(sys.argv) > 2 else 7
rng = np.random.default_rng(SEED)


def save(name, cases, tensors):
    """Safetensors: the header's length, the header (JSON), the values."""
    kinds = {np.dtype(np.float64): "F64", np.dtype(np.float32): "F32"}
    header = {"__metadata__": {"layout": f"mzsr-golden-{name}-1", "cases": json.dumps(cases)}}
    body = b""
    for key, values in sorted(tensors.items(), key=lambda item: (item[1].dtype.itemsize, item[0]), reverse=True):
        part = np.ascontiguousarray(values).tobytes()
        header[key] = {
            "dtype": kinds[values.dtype],
            "shape": list(values.shape),
            "data_offsets": [len(body), len(body) + len(part)],
        }
        body += part
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    (OUT / f"{name}.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + body)


# Kernels

def gaussian(l1, l2, angle, size):
    """Covariance with eigenvalues l1 (at `angle` from right towards down) and l2."""
    axis1 = np.array([np.cos(angle), np.sin(angle)])
    axis2 = np.array([-np.sin(angle), np.cos(angle)])
    precision = np.outer(axis1, axis1) / l1 + np.outer(axis2, axis2) / l2
    kernel = np.empty((size, size))
    for row in range(size):
        for column in range(size):
            at = np.array([column - (size - 1) / 2, row - (size - 1) / 2])
            kernel[row, column] = np.exp(-at @ precision @ at / 2)
    return kernel / kernel.sum()


def spec_kernel(spec):
    numbers = [float(word) for word in spec.removeprefix("gaussian:").split(",")]
    return gaussian(*(numbers if len(numbers) == 3 else [numbers[0], numbers[0], 0.0]), 15)


# Resampling

def mirror(index, size):
    """Half-sample symmetric: … 1 0 | 0 1 … size − 1 | size − 1 …"""
    index %= 2 * size
    return index if index < size else 2 * size - 1 - index


def keys(t):
    t = abs(t)
    if t <= 1:
        return (1.5 * t - 2.5) * t * t + 1
    return ((-0.5 * t + 2.5) * t - 4) * t + 2 if t < 2 else 0.0


def resize_axis(size, scale, count):
    """The matrix of a cubic resize by `scale` along one axis; smaller is antialiased."""
    shrink = min(scale, 1.0)
    matrix = np.zeros((count, size))
    for out in range(count):
        centre = (out + 0.5) / scale - 0.5
        reach = 2 / shrink
        weights = {j: keys((j - centre) * shrink) for j in range(floor(centre - reach), ceil(centre + reach) + 1)}
        total = sum(weights.values())
        for j, weight in weights.items():
            matrix[out, mirror(j, size)] += weight / total
    return matrix


def resize(image, scale, height, width):
    rows = np.tensordot(resize_axis(image.shape[0], scale, height), image, (1, 0))
    return np.tensordot(rows, resize_axis(image.shape[1], scale, width), (1, 1)).transpose(0, 2, 1)


def blur(image, kernel):
    """Correlation; an even kernel's centre is at size / 2."""
    height, width = image.shape[:2]
    out = np.zeros_like(image)
    for i in range(kernel.shape[0]):
        rows = [mirror(y + i - kernel.shape[0] // 2, height) for y in range(height)]
        for j in range(kernel.shape[1]):
            columns = [mirror(x + j - kernel.shape[1] // 2, width) for x in range(width)]
            out += kernel[i, j] * image[rows][:, columns]
    return out


def degrade(image, scale, kernel, downsample):
    counts = [ceil(size / scale - 1e-9) for size in image.shape[:2]]
    if kernel is not None:
        image = blur(image, kernel)
    if downsample == "bicubic":
        return resize(image, 1 / scale, *counts)
    rows, columns = ([min(floor(scale * i + 0.5), n - 1) for i in range(c)] for c, n in zip(counts, image.shape))
    return image[rows][:, columns]


# Network: a list of (weight OIHW, bias) for each layer, pictures NCHW

def shifted(x):
    """x under each of the nine taps, zeros around it: taps, N, C, H, W."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return np.stack([padded[:, :, i:i + x.shape[2], j:j + x.shape[3]] for i in range(3) for j in range(3)])


def taps(weight):
    return weight.reshape(*weight.shape[:2], 9)


def convolve(weight, x):
    return np.einsum("oct,tnchw->nohw", taps(weight), shifted(x))


def convolve_back(weight, delta):
    turned = taps(weight)[:, :, ::-1]
    return np.einsum("oct,tnohw->nchw", turned, shifted(delta))


def correlate(x, delta):
    return np.einsum("tnchw,nohw->oct", shifted(x), delta).reshape(delta.shape[1], x.shape[1], 3, 3)


def column(bias):
    return bias[None, :, None, None]


smallest = np.inf


def forward(net, x):
    """The output, and each layer's input a and mask m (the last layer has no mask)."""
    global smallest
    a, m = [x], []
    for weight, bias in net[:-1]:
        z = convolve(weight, a[-1]) + column(bias)
        # A unit or a sign near zero could turn with rounding: no case may have one.
        smallest = min(smallest, np.abs(z).min())
        m.append(z > 0)
        a.append(z * m[-1])
    weight, bias = net[-1]
    return x + convolve(weight, a[-1]) + column(bias), a, m


def loss(net, x, y):
    return np.abs(forward(net, x)[0] - y).mean()


def gradient(net, x, y):
    """Loss, gradient, and what a Hessian-vector product needs again."""
    global smallest
    output, a, m = forward(net, x)
    smallest = min(smallest, np.abs(output - y).min())
    delta = [None] * len(net)
    delta[-1] = np.sign(output - y) / y.size
    for l in reversed(range(1, len(net))):
        delta[l - 1] = m[l - 1] * convolve_back(net[l][0], delta[l])
    grad = [(correlate(a[l], delta[l]), delta[l].sum((0, 2, 3))) for l in range(len(net))]
    return np.abs(output - y).mean(), grad, (a, m, delta)


def product(net, x, y, direction):
    """H · direction: masks and signs do not move, so only the products are differentiated."""
    _, _, (a, m, delta) = gradient(net, x, y)
    ra = [np.zeros_like(x)]
    for l in range(len(net) - 1):
        (weight, _), (v, c) = net[l], direction[l]
        ra.append(m[l] * (convolve(v, a[l]) + convolve(weight, ra[l]) + column(c)))
    rdelta = [None] * len(net)
    rdelta[-1] = np.zeros_like(delta[-1])
    for l in reversed(range(1, len(net))):
        rdelta[l - 1] = m[l - 1] * (convolve_back(direction[l][0], delta[l]) + convolve_back(net[l][0], rdelta[l]))
    return [
        (correlate(ra[l], delta[l]) + correlate(a[l], rdelta[l]), rdelta[l].sum((0, 2, 3))) for l in range(len(net))
    ]


def combined(net, other, factors):
    """net + factors[layer] · other."""
    return [(w + f * v, b + f * c) for (w, b), (v, c), f in zip(net, other, factors)]


def inner(net, task, rates):
    """The parameters before and after each update, the losses before each, the gradients."""
    path, losses, grads = [net], [], []
    for row in rates:
        value, grad, _ = gradient(path[-1], *task[:2])
        losses.append(value)
        grads.append(grad)
        path.append(combined(path[-1], grad, -row))
    return path, losses, grads


def meta_loss(net, task, rates, weights):
    path, _, _ = inner(net, task, rates)
    return sum(w * loss(after, *task[2:]) for w, after in zip(weights, path[1:]))


def meta(net, task, rates, weights, second=True):
    """The outer loss, its gradient in the starting weights and in the rates."""
    path, _, grads = inner(net, task, rates)
    count, depth = len(rates), len(net)
    zero = [(np.zeros_like(w), np.zeros_like(b)) for w, b in net]
    u, total, rate_grad = zero, 0.0, np.zeros((count, depth))
    for k in reversed(range(count)):
        value, outer, _ = gradient(path[k + 1], *task[2:])
        total += weights[k] * value
        u = combined(u, outer, [weights[k]] * depth)
        rate_grad[k] = [-(g * v).sum() - (h * c).sum() for (g, h), (v, c) in zip(grads[k], u)]
        if second:
            scaled = combined(zero, u, rates[k])
            u = combined(u, product(path[k], *task[:2], scaled), [-1.0] * depth)
    return total, u, rate_grad


def narrow(values):
    """What f32 can hold, as f64."""
    return np.asarray(values).astype(np.float32).astype(np.float64)


def pair(n, height, width):
    y = rng.random((n, 3, height, width))
    return narrow(np.clip(y + 0.1 * rng.normal(size=y.shape), 0, 1)), narrow(y)


def network_case(channels, linear):
    """Linear: small weights and large biases keep every unit active."""
    net = []
    for l, (i, o) in enumerate(zip(channels, channels[1:])):
        last = l + 2 == len(channels)
        size = 0.3 if last else 0.1 if linear else 1.0
        weight = rng.normal(size=(o, i, 3, 3)) * (2 / (9 * i)) ** 0.5 * size
        bias = rng.normal(size=o) * 0.05 + (4.0 if linear and not last else 0.0)
        net.append((narrow(weight), narrow(bias)))
    x, y = pair(2, 7, 10)
    task = (*pair(2, 6, 5), *pair(2, 6, 5))
    direction = [(narrow(rng.normal(size=w.shape) * 0.1), narrow(rng.normal(size=b.shape) * 0.1)) for w, b in net]
    output, _, masks = forward(net, x)
    assert not linear or all(mask.all() for mask in masks)
    value, grad, _ = gradient(net, x, y)
    rates = [0.02, 0.01, 0.01]
    rows = np.array([[rate] * len(net) for rate in rates])
    last, every = [0.0, 0.0, 1.0], [0.2, 0.3, 0.5]
    path, losses, _ = inner(net, task, rows)
    hvp = product(net, x, y, direction)

    # The derivatives against finite differences.
    def dot(a, b):
        return sum((w * v).sum() + (p * q).sum() for (w, p), (v, q) in zip(a, b))

    def slope(f, h=1e-6):
        ahead, behind = (f(combined(net, direction, [step] * len(net))) for step in (h, -h))
        return (ahead - behind) / (2 * h)

    def near(a, b):
        assert abs(a - b) <= 1e-6 * max(abs(a), 1e-2), (a, b)

    near(dot(grad, direction), slope(lambda n: loss(n, x, y)))
    near(dot(hvp, grad), slope(lambda n: dot(gradient(n, x, y)[1], grad)))
    near(dot(meta(net, task, rows, every)[1], direction), slope(lambda n: meta_loss(n, task, rows, every)))

    tensors = {"x": x, "y": y, "output": output, "loss": np.array([value]), "inner.losses": np.array(losses)}
    tensors |= dict(zip(["x_train", "y_train", "x_test", "y_test"], task))

    def put(name, layers):
        for l, (weight, bias) in enumerate(layers, 1):
            tensors[f"{name}.conv{l}.weight"], tensors[f"{name}.conv{l}.bias"] = weight, bias

    for name, layers in [("params", net), ("grad", grad), ("vector", direction), ("hvp", hvp), ("inner.params", path[-1])]:
        put(name, layers)
    runs = [("meta_last_second", last, True), ("meta_all_second", every, True), ("meta_last_first", last, False)]
    for name, weights, second in runs:
        total, u, _ = meta(net, task, rows, weights, second)
        tensors[f"{name}.loss"] = np.array([total])
        put(name, u)
    if not linear:
        # Learned rates, of each update and layer; files may come without them.
        table = narrow(rng.uniform(0.005, 0.03, rows.shape))
        total, u, rate_grad = meta(net, task, table, every)
        k, l, h = 1, 1, 1e-6
        step = np.zeros_like(table)
        step[k, l] = h
        near(rate_grad[k, l], (meta_loss(net, task, table + step, every) - meta_loss(net, task, table - step, every)) / (2 * h))
        tensors |= {"learned.rates": table, "learned.loss": np.array([total]), "learned.rate_grad": rate_grad}
        put("learned", u)
    wide = ("loss", "losses", "rate_grad")
    tensors = {k: v if k.endswith(wide) else v.astype(np.float32) for k, v in tensors.items()}
    return {"rates": rates, "weights_last": last, "weights_all": every}, tensors


def main():
    specs = [(2.0, 2.0, 0.0, 15), (4.0, 1.0, -0.5, 15), (0.2, 0.2, 0.0, 9), (3.1, 1.7, 2.2, 12)]
    cases = {f"kernel.{i}": {"gaussian": spec[:3], "size": spec[3]} for i, spec in enumerate(specs)}
    save("kernels", cases, {f"kernel.{i}": gaussian(*spec) for i, spec in enumerate(specs)})

    height, width = 13, 11
    image = 0.6 * rng.random((height, width, 3)) + 0.4 * rng.random((height, 1, 1)) * rng.random((1, width, 1))
    tensors, cases = {"image": image}, {}
    for name, shape in [("free", (9, 7)), ("even", (8, 6))]:
        kernel = rng.random(shape) ** 3
        tensors[f"kernel.{name}"] = kernel / kernel.sum()
    sizes = [(2, 26, 22), (3, 39, 33), (2, 25, 21), (2.7, 36, 30), (0.5, 7, 6), (0.25, 4, 3), (1 / 3, 5, 4), (1 / 1.5, 9, 8)]
    for i, (scale, rows, columns) in enumerate(sizes):
        tensors[f"resize.{i}"] = resize(image, scale, rows, columns)
        cases[f"resize.{i}"] = {"scale": scale, "height": rows, "width": columns}
    kernels = ["none", "gaussian:2.0", "gaussian:4.0,1.0,-0.5", "free", "even"]
    kinds = [(s, k, d) for s in (2, 3, 4, 2.2, 3.4) for k in kernels for d in ("direct", "bicubic")]
    kinds = [kind for kind in kinds if kind[1:] != ("none", "direct")]
    for i, (scale, spec, downsample) in enumerate(kinds):
        kernel = None if spec == "none" else tensors.get(f"kernel.{spec}")
        kernel = spec_kernel(spec) if spec.startswith("gaussian") else kernel
        tensors[f"degrade.{i}"] = degrade(image, scale, kernel, downsample)
        cases[f"degrade.{i}"] = {"scale": scale, "kernel": spec, "downsample": downsample}
    save("resample", cases, tensors)

    tensors, cases = {}, {}
    for case, linear in [("relu", False), ("linear", True)]:
        cases[case], made = network_case([3, 4, 4, 3], linear)
        tensors |= {f"{case}.{name}": values for name, values in made.items()}
    print(f"the unit or difference nearest to zero: {smallest:.1e}")
    assert smallest > 1e-5, "another seed is needed: rounding could turn a unit"
    save("network", cases, tensors)


main()

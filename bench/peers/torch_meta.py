#!/usr/bin/env python3
"""Meta-steps an hour: `mzsr meta-train` beside PyTorch's autograd (create_graph) on the same step.

One thread each, counted in processor time, so that what else the machine does changes little. PyTorch
is given tensors in memory and leaves Adam out; mzsr is the whole process (patches included) of some
steps less that of a few. Needs torch and numpy, and the built-in PNG writer of torch_upscale.py.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from torch_upscale import write_png

CHANNELS = [3, 64, 64, 64, 64, 64, 64, 64, 3]


def recipe(folder, args):
    last = f"[{', '.join(['0.4'] + ['0.0'] * (args.updates - 2) + ['0.6'])}]"
    return f"""
steps = 1000
[model]
name = "timing"
scale = 2
downsample = "direct"
[data]
photos = ["{folder}"]
patch = {args.patch}
[degradation]
kernels = "gaussian"
[optimiser]
rate = 2e-4
schedule = "constant"
[meta]
tasks = {args.tasks}
train = {args.train}
test = {args.test}
updates = {args.updates}
rate = 3e-2
learn = 0.02
weights = {last}
[output]
folder = "{folder}/out"
checkpoint_every = 100000
log_every = 100000
"""


def processor_seconds(mzsr, folder, text, steps):
    (folder / "recipe.toml").write_text(text.replace("/out", f"/out{steps}"))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [mzsr, "meta-train", folder / "recipe.toml", "--threads", "1", "--steps", str(steps), "--quiet"]
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def torch_step(args, channels_last):
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(1)
    torch.manual_seed(1)
    form = torch.channels_last if channels_last else torch.contiguous_format
    params = []
    for a, b in zip(CHANNELS, CHANNELS[1:]):
        params.append((torch.randn(b, a, 3, 3) * (2 / (9 * a)) ** 0.5).requires_grad_())
        params.append(torch.zeros(b, requires_grad=True))
    rates = [[torch.tensor(3e-2, requires_grad=True) for _ in CHANNELS[1:]] for _ in range(args.updates)]

    def loss(params, x, y):
        a = x
        for i in range(0, len(params), 2):
            a = F.conv2d(a, params[i], params[i + 1], padding=1)
            if i + 2 < len(params):
                a = F.relu(a)
        return (x + a - y).abs().mean()

    def pair(n):
        return [torch.rand(n, 3, args.patch, args.patch).contiguous(memory_format=form) for _ in range(2)]

    def step():
        for _ in range(args.tasks):
            train, test = pair(args.train), pair(args.test)
            now, outer = params, 0.0
            for k in range(args.updates):
                grads = torch.autograd.grad(loss(now, *train), now, create_graph=True)
                now = [p - rates[k][i // 2] * g for i, (p, g) in enumerate(zip(now, grads))]
                if k in (0, args.updates - 1):
                    outer = outer + (0.4 if k == 0 else 0.6) * loss(now, *test)
            torch.autograd.grad(outer, params + [rate for row in rates for rate in row])

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mzsr", default="target/release/mzsr")
    parser.add_argument("--tasks", type=int, default=2)
    parser.add_argument("--train", type=int, default=4)
    parser.add_argument("--test", type=int, default=4)
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--patch", type=int, default=48)
    parser.add_argument("--steps", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for i in range(2):
            write_png(folder / f"{i}.png", 256, i)
        text = recipe(folder, args)
        few = processor_seconds(args.mzsr, folder, text, 2)
        ours = (processor_seconds(args.mzsr, folder, text, 2 + args.steps) - few) / args.steps
    print(f"mzsr, whole process: {ours:.2f} processor seconds a step, {3600 / ours:.0f} steps an hour", flush=True)
    for channels_last in (False, True):
        step = torch_step(args, channels_last)
        step()
        start = time.process_time()
        rounds = max(2, args.steps // 4)
        for _ in range(rounds):
            step()
        theirs = (time.process_time() - start) / rounds
        name = "channels last" if channels_last else "contiguous"
        print(f"PyTorch, {name}: {theirs:.2f} processor seconds a step, {3600 / theirs:.0f} steps an hour, "
              f"{theirs / ours:.2f} times mzsr's", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

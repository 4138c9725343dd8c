#!/usr/bin/env python3
"""PyTorch on a GPU: the same phases as `mzsr bench --device gpu` and `mzsr upscale`, in strict fp32.

Each in contiguous and channels-last memory, with cudnn.benchmark; the faster one counts. Given
tensors on the device, no files, no start; but "photo to photo" is all that `mzsr bench` times as an
enlargement: from a photo in the processor's memory (its son, both cubic upscales, the loss after the
last update) to one there. Needs torch; `--device cpu` tries the script without a GPU.
"""

import argparse
import json
import statistics
import time

import torch

CHANNELS = [3, 64, 64, 64, 64, 64, 64, 64, 3]


def network(form, device):
    modules = []
    for layer, (a, b) in enumerate(zip(CHANNELS, CHANNELS[1:])):
        modules.append(torch.nn.Conv2d(a, b, 3, padding=1))
        if layer + 2 < len(CHANNELS):
            modules.append(torch.nn.ReLU(inplace=True))
    return torch.nn.Sequential(*modules).to(device, memory_format=form)


def phases(form, device, side):
    net = network(form, device)
    params = list(net.parameters())
    tensor = lambda n, s: torch.rand(n, 3, s, s, device=device).contiguous(memory_format=form)
    train, test = (tensor(8, 64), tensor(8, 64)), (tensor(8, 64), tensor(8, 64))
    whole, batch, large = (tensor(1, side), tensor(1, side)), (tensor(16, 64), tensor(16, 64)), tensor(1, 2 * side)

    def forward(pair):
        with torch.inference_mode():
            return pair[0] + net(pair[0])

    def backward(pair):
        return torch.autograd.grad((pair[0] + net(pair[0]) - pair[1]).abs().mean(), params)

    def meta():
        """A task of a meta-step as the paper has it: five updates, judged after each, exact second order."""
        at, loss = params, 0
        for _ in range(5):
            gradients = torch.autograd.grad(error(at, train), at, create_graph=True)
            at = [parameter - 1e-6 * gradient for parameter, gradient in zip(at, gradients)]
            loss = loss + error(at, test) / 5
        return torch.autograd.grad(loss, params)

    def error(at, pair):
        out = pair[0]
        for layer in range(0, len(at), 2):
            out = torch.nn.functional.conv2d(out, at[layer], at[layer + 1], padding=1)
            out = out.relu() if layer + 2 < len(at) else out
        return (pair[0] + out - pair[1]).abs().mean()

    def upscale(updates):
        for _ in range(updates):
            gradients = backward(whole)
            with torch.no_grad():
                for parameter, gradient in zip(params, gradients):
                    parameter.sub_(gradient, alpha=1e-6)
        with torch.inference_mode():
            return large + net(large)

    photo = torch.rand(1, 3, side, side)

    def whole_job(updates):
        resize = lambda t, s: torch.nn.functional.interpolate(t, size=(s, s), mode="bicubic", antialias=s < t.shape[2])
        low = photo.to(device).contiguous(memory_format=form)
        son = resize(resize(low, side // 2).clamp(0, 1), side)
        for _ in range(updates):
            gradients = backward((son, low))
            with torch.no_grad():
                for parameter, gradient in zip(params, gradients):
                    parameter.sub_(gradient, alpha=1e-6)
        with torch.inference_mode():
            after = (son + net(son) - low).abs().mean()
            start = resize(low, 2 * side)
            return (start + net(start)).clamp(0, 1).cpu(), after.item()

    return {
        f"forward 1 x {side}": lambda: forward(whole),
        f"forward+backward 1 x {side}": lambda: backward(whole),
        "forward 16 x 64": lambda: forward(batch),
        "forward+backward 16 x 64": lambda: backward(batch),
        "upscale, 1 update": lambda: upscale(1),
        "upscale, 10 updates": lambda: upscale(10),
        "photo to photo, 1 update": lambda: whole_job(1),
        "photo to photo, 10 updates": lambda: whole_job(10),
        "a task of a meta-step": meta,
    }


def clock(work, device, rounds):
    wait = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
    times = []
    for turn in range(rounds + 3):
        wait()
        start = time.perf_counter()
        work()
        wait()
        if turn >= 3:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tf32", action="store_true", help="let it round to TF32")
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32
    best = {}
    for name, form in (("contiguous", torch.contiguous_format), ("channels last", torch.channels_last)):
        for phase, work in phases(form, args.device, args.side).items():
            taken = clock(work, args.device, args.rounds)
            if phase not in best or taken < best[phase][0]:
                best[phase] = (taken, name)
    for phase, (taken, name) in best.items():
        print(f"PyTorch {torch.__version__}, {phase:28} {1e3 * taken:9.2f} ms ({name})")
    print(json.dumps({phase: taken for phase, (taken, _) in best.items()}))


if __name__ == "__main__":
    main()

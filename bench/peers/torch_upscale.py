#!/usr/bin/env python3
"""The whole process `mzsr upscale -n 10` beside PyTorch's compute alone, in one run.

PyTorch is given the tensors: ten gradient steps of the eight-layer network on the son's pair, then
the forward pass on the enlarged photo, nothing else: no start, no files, no resizing. Each of the
two phases runs in contiguous and in channels-last memory, and the faster one counts. The two
programs take turns, round by round. Run by bench/upscale.sh; needs torch, numpy and safetensors.
"""

import argparse
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

SIDE, SCALE, LAYERS = 256, 2, 8


def write_png(path, side, seed):
    """A photo-like picture: waves, edges and grain."""
    state, rows = seed, []
    for y in range(side):
        row = bytearray([0])
        for x in range(side):
            wave = (x * x // 37 + y * 3) % 160 + (40 if (x // 24 + y // 40) % 2 else 0)
            for channel in range(3):
                state = (state * 1103515245 + 12345) & 0x7FFFFFFF
                row.append(min(255, wave + 7 * channel + (state >> 16) % 24))
        rows.append(bytes(row))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def process(command):
    """Seconds of a whole process, and the most memory it held, in MiB."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    taken = time.perf_counter() - start
    if child.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit status {child.returncode}\n{said.decode()}")
    return taken, usage.ru_maxrss / 1024


def weights(mzsr, folder):
    """Weights of He's random values in our file, for a program that has none built in."""
    import numpy
    from safetensors.numpy import save_file

    random, tensors = numpy.random.default_rng(1), {}
    channels = [3] + [64] * (LAYERS - 1) + [3]
    for layer, (inputs, outputs) in enumerate(zip(channels, channels[1:])):
        size = (6 / (9 * inputs)) ** 0.5 * (0.1 if layer == LAYERS - 1 else 1)
        values = random.uniform(-size, size, (outputs, inputs, 3, 3)).astype("float32")
        tensors[f"net.{2 * layer}.weight"] = values
        tensors[f"net.{2 * layer}.bias"] = numpy.zeros(outputs, "float32")
    save_file(tensors, folder / "random.safetensors")
    made = folder / "weights.safetensors"
    # A small rate: random weights must not make an update raise the loss, which would be made again.
    subprocess.run(
        [mzsr, "weights", "convert", folder / "random.safetensors", made, "--scale", str(SCALE)]
        + ["--downsample", "bicubic", "--kernels", "false", "--rates", "1e-4"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return made


def torch_phases(threads, updates):
    """The two phases in both layouts: {phase: {layout: function}}."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(1)

    def phases(layout):
        modules = []
        for layer in range(LAYERS):
            inputs, outputs = (3 if layer == 0 else 64), (3 if layer == LAYERS - 1 else 64)
            modules.append(torch.nn.Conv2d(inputs, outputs, 3, padding=1))
            if layer < LAYERS - 1:
                modules.append(torch.nn.ReLU(inplace=True))
        network = torch.nn.Sequential(*modules).to(memory_format=layout)
        son, photo = (torch.rand(1, 3, SIDE, SIDE).contiguous(memory_format=layout) for _ in range(2))
        large = torch.rand(1, 3, SCALE * SIDE, SCALE * SIDE).contiguous(memory_format=layout)
        parameters = list(network.parameters())

        def adapt():
            for _ in range(updates):
                loss = (son + network(son) - photo).abs().mean()
                gradients = torch.autograd.grad(loss, parameters)
                with torch.no_grad():
                    for parameter, gradient in zip(parameters, gradients):
                        parameter.sub_(gradient, alpha=1e-4)

        def enlarge():
            with torch.inference_mode():
                return large + network(large)

        return adapt, enlarge

    layouts = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    made = {name: phases(layout) for name, layout in layouts.items()}
    return torch.__version__, {
        phase: {name: made[name][index] for name in layouts} for index, phase in enumerate(("adapt", "enlarge"))
    }


def clock(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mzsr", required=True, help="the program")
    parser.add_argument("--weights", help="a name or a file [default: built-in ones, else random ones]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(args, Path(folder))
    if args.json:
        print(json.dumps(report))
        return
    print(f"PyTorch {report['torch']}, {args.threads} threads, {args.rounds} rounds, medians (best)")
    for phase, layouts in report["phases"].items():
        for layout, (median, best) in layouts.items():
            chosen = "  <- counts" if layout == report["layouts"][phase] else ""
            print(f"  {phase:8} {layout:14} {median:7.3f} s ({best:.3f}){chosen}")
    print(f"  PyTorch's compute       {report['torch_seconds'][0]:7.3f} s ({report['torch_seconds'][1]:.3f})")
    print(f"  mzsr upscale, whole     {report['mzsr_seconds'][0]:7.3f} s ({report['mzsr_seconds'][1]:.3f})")
    print(f"  PyTorch / mzsr          {report['ratio']:7.2f}   ({report['best_ratio']:.2f} of the best)")
    print(f"peak memory of mzsr upscale -n {args.updates}: {report['memory_mib']:.0f} MiB")
    print(f"mzsr --version:                     {1e3 * report['version_seconds']:6.1f} ms")
    print(f"mzsr upscale -n 1 of 32 x 32, whole: {1e3 * report['small_seconds']:6.1f} ms")


def measure(args, folder):
    mzsr = args.mzsr
    photo, small, out = folder / "photo.png", folder / "small.png", folder / "larger.png"
    write_png(photo, SIDE, 1)
    write_png(small, 32, 2)
    if args.weights:
        chosen = ["--weights", args.weights]
    elif subprocess.run([mzsr, "upscale", small, "-o", out, "-q"], stderr=subprocess.DEVNULL).returncode == 0:
        chosen = []
    else:
        chosen = ["--weights", str(weights(mzsr, folder))]
    common = ["-o", str(out), "-s", str(SCALE), "--threads", str(args.threads), *chosen]
    upscale = [mzsr, "upscale", str(photo), "-n", str(args.updates), *common]
    said = subprocess.run([*upscale, "-v"], check=True, capture_output=True, text=True).stderr
    if "raised the son's loss" in said or f"{args.updates} updates on {SIDE * SIDE} pixels" not in said:
        sys.exit(f"these weights do not do {args.updates} updates in one go:\n{said}")
    # Before PyTorch is here: until it becomes another program, a child counts its parent's memory.
    memory = max(process(upscale)[1] for _ in range(3))
    version = statistics.median(process([mzsr, "--version"])[0] for _ in range(20))
    first = statistics.median(process([mzsr, "upscale", str(small), "-n", "1", *common])[0] for _ in range(20))

    torch_version, phases = torch_phases(args.threads, args.updates)
    times = {phase: {layout: [] for layout in layouts} for phase, layouts in phases.items()}
    ours = []
    for layouts in phases.values():
        for work in layouts.values():
            work()
    for _ in range(args.rounds):
        for phase, layouts in phases.items():
            for layout, work in layouts.items():
                times[phase][layout].append(clock(work))
        ours.append(process(upscale)[0])
    both = lambda values: (statistics.median(values), min(values))
    phase_times = {phase: {name: both(values) for name, values in layouts.items()} for phase, layouts in times.items()}
    fastest = {phase: min(layouts, key=lambda name: layouts[name][0]) for phase, layouts in phase_times.items()}
    torch_seconds = [sum(phase_times[phase][fastest[phase]][i] for phase in phases) for i in range(2)]
    mzsr_seconds = both(ours)
    return {
        "torch": torch_version,
        "weights": chosen[1] if chosen else "built-in",
        "phases": phase_times,
        "layouts": fastest,
        "torch_seconds": torch_seconds,
        "mzsr_seconds": mzsr_seconds,
        "ratio": torch_seconds[0] / mzsr_seconds[0],
        "best_ratio": torch_seconds[1] / mzsr_seconds[1],
        "memory_mib": memory,
        "version_seconds": version,
        "small_seconds": first,
    }


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Exports a published super-resolution network as the ONNX file that `mzsr eval` takes as onnx:FILE.

The network's code and checkpoint are the authors': clone their repository and name it with --repo.
The file has one input `lr`, 1 x 3 x h x w RGB values in [0, 1], and one output `sr` of s times the size;
whatever the network expects instead (0 to 255, a kernel code) is put inside.

    export_onnx.py carn   --repo CARN-pytorch --checkpoint CARN-pytorch/checkpoint/carn.pth   carn_x2.onnx
    export_onnx.py carn-m --repo CARN-pytorch --checkpoint CARN-pytorch/checkpoint/carn_m.pth carn_m_x2.onnx
    export_onnx.py rcan   --repo RCAN         --checkpoint RCAN_BIX2.pt                       rcan_x2.onnx
    export_onnx.py ikc    --repo IKC --checkpoint SFTMD.pth --predictor P.pth --corrector C.pth ikc_x2.onnx

Needs torch and onnx (for torch's newer exporter onnxscript too); see docs/supervised.md.
"""
import argparse
import importlib
import sys
import types
from pathlib import Path

import torch
from torch import nn


class Carn(nn.Module):
    """The scale is an argument of the network's forward."""

    def __init__(self, net, scale):
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, lr):
        return self.net(lr, self.scale)


class Levels(nn.Module):
    """For networks that work on 0 to 255."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, lr):
        return self.net(lr * 255.0) / 255.0


class Ikc(nn.Module):
    """The predictor guesses a kernel code; the corrector mends it after each look at the result."""

    def __init__(self, restore, predict, correct, rounds):
        super().__init__()
        self.restore, self.predict, self.correct, self.rounds = restore, predict, correct, rounds

    def forward(self, lr):
        code = self.predict(lr)
        sr = self.restore(lr, code)
        for _ in range(self.rounds - 1):
            code = self.correct(sr, code)
            sr = self.restore(lr, code)
        return sr


def weights(path):
    """A state dict, without the prefix that training on several devices leaves."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state) if isinstance(state, dict) else state.state_dict()
    return {name.removeprefix("module."): value for name, value in state.items()}


def module(folder, name):
    folder = Path(folder)
    if not folder.is_dir():
        sys.exit(f"{folder}: no such folder; is --repo the authors' repository?")
    sys.path.insert(0, str(folder))
    return importlib.import_module(name)


def build(args):
    repo = Path(args.repo)
    if args.network in ("carn", "carn-m"):
        small = args.network == "carn-m"
        code = module(repo / "carn", "model.carn_m" if small else "model.carn")
        net = code.Net(multi_scale=True, group=4 if small else 1)
        net.load_state_dict(weights(args.checkpoint))
        return Carn(net, args.scale)
    if args.network == "rcan":
        code = module(repo / "RCAN_TestCode" / "code", "model.rcan")
        options = types.SimpleNamespace(
            n_resgroups=10, n_resblocks=20, n_feats=64, reduction=16, scale=[args.scale], rgb_range=255,
            n_colors=3, res_scale=1, data_train="DIV2K")
        net = code.RCAN(options)
        net.load_state_dict(weights(args.checkpoint), strict=True)
        return Levels(net)
    # The architecture's file alone: the package around it wants data loaders.
    code = module(repo / "codes" / "models" / "modules", "sftmd_arch")
    restore, predict, correct = code.SFTMD(scale=args.scale), code.Predictor(), code.Corrector()
    for net, path in ((restore, args.checkpoint), (predict, args.predictor), (correct, args.corrector)):
        net.load_state_dict(weights(path))
    return Ikc(restore, predict, correct, args.rounds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=["carn", "carn-m", "rcan", "ikc"])
    parser.add_argument("output")
    parser.add_argument("--repo", required=True, help="the authors' repository")
    parser.add_argument("--checkpoint", required=True, help="of the network; of IKC its SFTMD")
    parser.add_argument("--predictor", help="IKC's")
    parser.add_argument("--corrector", help="IKC's")
    parser.add_argument("--rounds", type=int, default=7, help="looks at the result that IKC takes")
    parser.add_argument("--scale", type=int, default=2)
    args = parser.parse_args()
    if args.network == "ikc" and not (args.predictor and args.corrector):
        parser.error("ikc needs --predictor and --corrector")
    net = build(args).eval()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    example = torch.rand(1, 3, 48, 40)
    # Height and width stay free.
    torch.onnx.export(
        net, (example,), args.output, input_names=["lr"], output_names=["sr"], opset_version=17, dynamo=False,
        dynamic_axes={"lr": {2: "h", 3: "w"}, "sr": {2: "sh", 3: "sw"}})
    with torch.inference_mode():
        h, w = net(torch.rand(1, 3, 33, 27)).shape[2:]
    if (h, w) != (33 * args.scale, 27 * args.scale):
        sys.exit(f"33 x 27 pixels became {h} x {w}: this is no network for x{args.scale}")
    print(f"{args.output}: {sum(p.numel() for p in net.parameters())} parameters, x{args.scale}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""How far f32 is from f64 on the CPU, ours beside PyTorch's: gradients of whole networks at full width, twenty training steps, and
logits in inference with batch normalisation folded.

    python benches/peers/accuracy_cpu.py --residua target/release/residua --out accuracy_cpu.json

Everybody starts from the same weights and sees the same images. PyTorch in f64 is the truth, and PyTorch in f32, in both memory formats,
the measure. The gradients of Residua are read off one step of SGD at a rate of 2^20, beside which the weights are nothing.
"""

import argparse
import copy
import json
import pathlib
import subprocess
import tempfile

import torch
import torch.nn.functional as functional
from safetensors.torch import load_file
from torch.fx.experimental.optimization import fuse

from common import network, report, say

MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CLASSES = 10
GRADIENT_RATE = 2.0**20
STEPS = 20


def images(count):
    """Bytes and labels: noise around a brightness that grows with the class."""
    random = torch.Generator().manual_seed(1)
    labels = torch.randint(0, CLASSES, (count,), generator=random)
    values = 0.9 * torch.rand(count, 3, 32, 32, generator=random) + 0.01 * labels.view(-1, 1, 1, 1)
    return (255 * values).to(torch.uint8), labels


def write_cifar10(folder, pixels, labels):
    """CIFAR-10's binary files: a label, then three planes."""
    folder.mkdir()
    records = torch.cat([labels.to(torch.uint8).view(-1, 1), pixels.flatten(1)], dim=1)
    for number, part in enumerate(records.chunk(5), 1):
        (folder / f"data_batch_{number}.bin").write_bytes(part.numpy().tobytes())
    (folder / "test_batch.bin").write_bytes(records.numpy().tobytes())


def normalised(pixels, dtype, layout):
    mean, deviation = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
    # Rounded as the program rounds them, so that everybody sees the same.
    values = ((pixels.to(torch.float64) / 255 - mean) / deviation).to(torch.float32)
    return values.to(dtype).contiguous(memory_format=layout)


def train(model, pixels, labels, batch, rate, steps, dtype, layout):
    """Losses and parameters after steps in file order."""
    model = copy.deepcopy(model).to(dtype).to(memory_format=layout).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    inputs, losses = normalised(pixels, dtype, layout), []
    for step in range(steps):
        start = step * batch % len(labels)
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(model(inputs[start:start + batch]), labels[start:start + batch])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, {name: value.detach().double().contiguous() for name, value in model.named_parameters()}


def ours(arguments, folder, depth, batch, rate, steps, extra):
    """The same by the program."""
    out = pathlib.Path(tempfile.mkdtemp()) / "run"
    command = [arguments.residua, "train", "--data", f"cifar10:{folder / 'data'}", "--init", str(folder / "init.pth"),
               "--out", str(out), "--arch", f"resnet{depth}", "--stem", "cifar", "--device", "cpu", "--augment", "none",
               "--shuffle", "none", "--normalize", "cifar10", "--schedule", "constant", "--batch-size", str(batch),
               "--optimizer", "sgd", "--momentum", "0.9", "--weight-decay", "0", "--lr", repr(rate), "--max-steps", str(steps),
               "--epochs", str(steps), "--eval-every", str(10 * steps), "--log-every", "1", "--quiet", *extra]
    done = subprocess.run(command, capture_output=True, text=True)
    found = out / "checkpoints/last/model.safetensors"
    if not found.exists():
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["split"] == "train" and line["scope"] == "step"]
    return losses, {name: value.double() for name, value in load_file(found).items()}


def distance(found, truth, names):
    """Relative distance over all tensors, the median one, and the largest."""
    each = sorted(((found[name] - truth[name]).norm() / truth[name].norm()).item() for name in names)
    everything = sum((found[name] - truth[name]).square().sum() for name in names).sqrt()
    everything /= sum(truth[name].square().sum() for name in names).sqrt()
    return {"all": everything.item(), "median": each[len(each) // 2], "largest": each[-1]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--residua", required=True, help="the built program")
    parser.add_argument("--depths", default="18,50")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-4, help="learning rate of the twenty steps")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    batch, results = arguments.batch_size, []
    for depth in map(int, arguments.depths.split(",")):
        folder = pathlib.Path(tempfile.mkdtemp())
        pixels, labels = images(5 * batch)
        write_cifar10(folder / "data", pixels, labels)
        torch.manual_seed(0)
        model = network(depth, "cifar", CLASSES)
        torch.save(model.state_dict(), folder / "init.pth")
        start = {name: value.detach().double() for name, value in model.named_parameters()}
        plain, last = torch.contiguous_format, torch.channels_last
        peers = {"pytorch f64": (torch.float64, plain), "pytorch f32": (torch.float32, plain),
                 "pytorch f32 channels_last": (torch.float32, last)}
        own = {"residua f64": ["--precision", "f64"], "residua f32": [], "residua f32 avx2": ["--instructions", "avx2"]}

        def everybody(rate, steps):
            found = {name: train(model, pixels, labels, batch, rate, steps, *how) for name, how in peers.items()}
            return found | {name: ours(arguments, folder, depth, batch, rate, steps, how) for name, how in own.items()}

        steps_of = everybody(arguments.rate, STEPS)
        gradients = {name: {key: (start[key] - value[key]) / GRADIENT_RATE for key in start}
                     for name, (_, value) in everybody(GRADIENT_RATE, 1).items()}
        matrices = [name for name, value in start.items() if value.dim() >= 2]
        truth_losses, truth = steps_of["pytorch f64"]
        measure = max(distance(gradients[name], gradients["pytorch f64"], matrices)["all"]
                      for name in peers if "f32" in name)
        for name in [*peers, *own]:
            gradient = distance(gradients[name], gradients["pytorch f64"], matrices)
            losses, weights = steps_of[name]
            loss = max(abs(a - b) / abs(b) for a, b in zip(losses, truth_losses))
            moved = distance(weights, truth, matrices)
            say(f"resnet{depth} {name}: gradients {gradient['all']:.1e} ({gradient['all'] / measure:.2f} of PyTorch's), "
                f"median {gradient['median']:.1e}, largest {gradient['largest']:.1e}; {STEPS} steps: losses {loss:.1e}, "
                f"weights {moved['all']:.1e}, largest {moved['largest']:.1e}")
            results.append({"network": f"resnet{depth}", "who": name, "gradients": gradient, "of_pytorch": gradient["all"] / measure,
                            "losses": loss, "weights": moved})
        results.append(logits(arguments, folder, depth, model, pixels))
    report("accuracy_cpu", results, arguments.out, quiet=True, batch_size=batch, steps=STEPS)


def logits(arguments, folder, depth, model, pixels):
    """Logits in inference, of the untrained network with statistics of its own."""
    import numpy

    model = copy.deepcopy(model).train()
    with torch.no_grad():
        for _ in range(20):
            model(normalised(pixels, torch.float32, torch.contiguous_format))
    torch.save(model.state_dict(), folder / "eval.pth")
    model.eval()
    with torch.no_grad():
        truth = copy.deepcopy(model).double()(normalised(pixels, torch.float64, torch.contiguous_format))
        theirs = fuse(copy.deepcopy(model))(normalised(pixels, torch.float32, torch.contiguous_format)).double()
    out = folder / "cache"
    command = [arguments.residua, "extract", "--checkpoint", str(folder / "eval.pth"), "--data", f"cifar10:{folder / 'data'}",
               "--normalize", "cifar10", "--device", "cpu", "--out", str(out), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    files = sorted(out.rglob("*logits*.npy"))
    if done.returncode or not files:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}\n{list(out.rglob('*'))}")
    found = torch.from_numpy(numpy.load(files[0])).double()
    error = lambda values: ((values - truth).norm() / truth.norm()).item()
    say(f"resnet{depth} folded logits: residua {error(found):.1e}, pytorch {error(theirs):.1e}")
    return {"network": f"resnet{depth}", "folded_logits": {"residua": error(found), "pytorch": error(theirs)}}


if __name__ == "__main__":
    main()

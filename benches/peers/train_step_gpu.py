#!/usr/bin/env python3
"""Training steps of PyTorch on a CUDA device: channels_last, bf16 autocast or plain f32 (TF32 off), images already there.

    python benches/peers/train_step_gpu.py --out peer.json
    python benches/peers/train_step_gpu.py --networks resnet18-cifar.32 --batch-sizes 256 --precisions bf16 --out peer.json

Every step is measured in two ways: `graph`, the eager step captured in one CUDA graph, and a compiled one, `max-autotune` where it
is listed below and `reduce-overhead` elsewhere (torch.compile with CUDA graphs inside). The faster is the peer's figure. Rows are
named as Residua's are: train.resnet18-cifar.32.b512.bf16.

The file is written after every row. Called again with the same --out, it goes on with the rows that are missing. A way that fails
(memory, no compiler) is recorded with its error, and the others go on.
"""

import argparse
import gc
import json
import pathlib
import subprocess
import time

import torch
import torch.nn.functional as F

from common import median_seconds, network, report, say

CLASSES = 100
# Steps queued together, so that launching runs ahead as in training.
ROUND = 10
# Seconds to measure a row for, about; three rounds at the least.
ROW_SECONDS = 3
# Compiling with tuning takes minutes: only for the steps that matter most.
MAX_AUTOTUNE = {
    "train.resnet18-cifar.32.b512.bf16",
    "train.resnet50-cifar.64.b256.bf16",
    "train.resnet50-imagenet.64.b64.bf16",
}
# Seconds that a way takes before its first step, about: none begins that would not end in time.
SETUP_SECONDS = {"graph": 15, "reduce-overhead": 75, "max-autotune": 240}


def parse(name):
    """Depth, stem and image size of a network's name."""
    kind, size = name.split(".")
    arch, stem = kind.split("-")
    return int(arch.removeprefix("resnet")), stem, int(size)


def capture(step):
    """The step as a CUDA graph, after the side-stream warm-up that capturing asks for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(5):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def build(name, mode, batch, precision):
    """One training step as a function without arguments."""
    depth, stem, size = parse(name)
    torch.manual_seed(0)
    model = network(depth, stem, CLASSES).cuda().train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    images = torch.randn(batch, 3, size, size, device="cuda").to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (batch,), device="cuda")

    def loss_of(images, labels):
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits = model(images)
        return F.cross_entropy(logits.float(), labels)

    if mode != "graph":
        loss_of = torch.compile(loss_of, mode=mode)

    def step():
        # Also inside a capture: backward then writes each gradient afresh, at the same address on every replay.
        optimizer.zero_grad(set_to_none=True)
        loss_of(images, labels).backward()
        optimizer.step()

    return capture(step) if mode == "graph" else step


def measure(row, arguments):
    """Images per second of one row."""
    started = time.perf_counter()
    step = build(row["network"], row["mode"], row["batch_size"], row["precision"])

    def round_of_steps():
        for _ in range(ROUND):
            step()

    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    setup = time.perf_counter() - started
    once = median_seconds(round_of_steps, 0, 1, torch.cuda.synchronize)["median_s"]
    rounds = max(3, min(arguments.repeats, round(ROW_SECONDS / once)))
    timing = median_seconds(round_of_steps, 1, rounds, torch.cuda.synchronize)
    timing = {key: value / ROUND for key, value in timing.items()}
    peak = torch.cuda.max_memory_allocated() / 2**20
    return {"images_per_second": row["batch_size"] / timing["median_s"], **timing, "setup_s": setup,
            "rounds": rounds, "peak_memory_mib": round(peak)}


def rows(arguments):
    """All rows, those that matter most first: bf16 before f32, graphs (quick to set up) before compiled ways."""
    steps = [(name, int(batch)) for name in arguments.networks.split(",") for batch in arguments.batch_sizes.split(",")]
    if arguments.imagenet_batch and "resnet50-imagenet.64" in arguments.networks.split(","):
        steps.append(("resnet50-imagenet.64", arguments.imagenet_batch))
    found = []
    for precision in arguments.precisions.split(","):
        for compiled in (False, True):
            for name, batch in steps:
                row_name = f"train.{name}.b{batch}.{precision}"
                mode = "graph" if not compiled else "max-autotune" if row_name in MAX_AUTOTUNE else "reduce-overhead"
                found.append({"name": row_name, "network": name, "batch_size": batch, "precision": precision, "mode": mode})
    # The three that are tuned come before the other compiled ones of their precision.
    order = {"bf16": 0, "f32": 1}
    kind = {"graph": 0, "max-autotune": 1, "reduce-overhead": 2}
    return sorted(found, key=lambda row: (order.get(row["precision"], 2), kind[row["mode"]]))


def driver():
    command = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def earlier(path):
    """Rows of an earlier call that need not be measured again."""
    if path is None or not pathlib.Path(path).exists():
        return []
    return [row for row in json.loads(pathlib.Path(path).read_text())["results"] if "cut" not in row]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="resnet18-cifar.32,resnet50-cifar.64,resnet50-imagenet.64")
    parser.add_argument("--batch-sizes", default="128,256,512")
    parser.add_argument("--imagenet-batch", type=int, default=64,
                        help="one more batch size of resnet50-imagenet.64; 0 for none")
    parser.add_argument("--precisions", default="bf16,f32")
    parser.add_argument("--repeats", type=int, default=10, help="rounds of ten steps, at the most")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds; rows that would not end in time are cut")
    parser.add_argument("--list", action="store_true", help="print the rows and measure nothing")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    deadline = time.monotonic() + arguments.budget
    wanted = rows(arguments)
    if arguments.list:
        for row in wanted:
            print(row["name"], row["mode"])
        return
    if not torch.cuda.is_available():
        parser.exit(1, "no CUDA device: this measures one\n")
    torch.backends.cudnn.benchmark = True
    # f32 means f32, as in Residua.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False

    results = earlier(arguments.out)
    known = {(row["name"], row["mode"]) for row in results}

    def save():
        report("train_step_gpu", results, arguments.out, quiet=True, gpu=torch.cuda.get_device_name(), driver=driver(),
               cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version(), classes=CLASSES,
               memory_format="channels_last", repeats=arguments.repeats)

    for row in wanted:
        if (row["name"], row["mode"]) in known:
            continue
        if time.monotonic() + SETUP_SECONDS[row["mode"]] > deadline:
            results.append(row | {"cut": "no time left; call again with the same --out"})
            say(f"{row['name']}, {row['mode']}: cut")
            save()
            continue
        try:
            row = row | measure(row, arguments)
            say(f"{row['name']}, {row['mode']}: {row['images_per_second']:.0f} images/s")
        except Exception as error:  # whatever a way fails with, the others are still wanted
            row = row | {"error": f"{type(error).__name__}: {error}"[:500]}
            say(f"{row['name']}, {row['mode']}: {row['error']}")
        results.append(row)
        save()
        gc.collect()
        torch._dynamo.reset()
        torch.cuda.empty_cache()
    save()


if __name__ == "__main__":
    main()

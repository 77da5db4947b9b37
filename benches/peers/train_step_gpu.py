#!/usr/bin/env python3
"""Training steps on a CUDA device: bf16 autocast, channels_last, data already there; eager, compiled in several modes, and
the whole step captured in a CUDA graph. The fastest way is the peer's figure.

    python benches/peers/train_step_gpu.py --out train_step_gpu.json
    python benches/peers/train_step_gpu.py --networks resnet18_cifar_32 --ways eager,graph --batch-sizes 256

A way that fails (memory, no compiler) is recorded with its error, and the others go on.
"""

import argparse
import gc
import subprocess

import torch
import torch.nn.functional as F

from common import median_seconds, network, report, say

# name: depth, stem, image size
NETWORKS = {
    "resnet18_cifar_32": (18, "cifar", 32),
    "resnet50_cifar_64": (50, "cifar", 64),
    "resnet50_imagenet_64": (50, "imagenet", 64),
}
WAYS = ["eager", "graph", "compile", "compile_graph", "reduce-overhead", "max-autotune"]
CLASSES = 100


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


def build(name, way, batch):
    """One training step as a function without arguments."""
    depth, stem, size = NETWORKS[name]
    torch.manual_seed(0)
    model = network(depth, stem, CLASSES).cuda().train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    images = torch.randn(batch, 3, size, size, device="cuda").to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (batch,), device="cuda")

    def loss_of(images, labels):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            logits = model(images)
        return F.cross_entropy(logits.float(), labels)

    if way in ("compile", "compile_graph"):
        loss_of = torch.compile(loss_of)
    elif way == "max-autotune":
        loss_of = torch.compile(loss_of, mode="max-autotune")
    elif way == "reduce-overhead":
        loss_of = torch.compile(loss_of, mode="reduce-overhead")

    def step():
        # Also inside a capture: backward then writes each gradient afresh, at the same address on every replay.
        optimizer.zero_grad(set_to_none=True)
        loss_of(images, labels).backward()
        optimizer.step()

    return capture(step) if "graph" in way else step


def measure(name, way, batch, arguments):
    """Images per second of one combination; ten steps are timed together, so that launching runs ahead as in training."""
    step = build(name, way, batch)

    def ten_steps():
        for _ in range(10):
            step()

    torch.cuda.reset_peak_memory_stats()
    timing = median_seconds(ten_steps, arguments.warm_up, arguments.repeats, torch.cuda.synchronize)
    timing = {key: value / 10 for key, value in timing.items()}
    peak = torch.cuda.max_memory_allocated() / 2**20
    return {"images_per_second": batch / timing["median_s"], **timing, "peak_memory_mib": round(peak)}


def driver():
    command = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--batch-sizes", default="128,512,1024")
    parser.add_argument("--warm-up", type=int, default=3, help="rounds of ten steps")
    parser.add_argument("--repeats", type=int, default=10, help="rounds of ten steps")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(1, "no CUDA device: this measures one\n")
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")

    results = []
    for name in arguments.networks.split(","):
        for batch in map(int, arguments.batch_sizes.split(",")):
            for way in arguments.ways.split(","):
                row = {"network": name, "batch_size": batch, "way": way}
                try:
                    row |= measure(name, way, batch, arguments)
                    say(f"{name}, batch {batch}, {way}: {row['images_per_second']:.0f} images/s")
                except Exception as error:  # whatever a way fails with, the others are still wanted
                    row["error"] = f"{type(error).__name__}: {error}"[:500]
                    say(f"{name}, batch {batch}, {way}: {row['error']}")
                results.append(row)
                gc.collect()
                torch._dynamo.reset()
                torch.cuda.empty_cache()
    report("train_step_gpu", results, arguments.out, gpu=torch.cuda.get_device_name(), driver=driver(),
           cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version(), classes=CLASSES,
           precision="bf16 autocast", memory_format="channels_last", repeats=arguments.repeats)


if __name__ == "__main__":
    main()

"""What the peers of whole steps share: rows in several ways, the clock, and going on where an earlier call was cut."""

import argparse
import gc
import json
import pathlib
import subprocess
import time

import torch

from common import median_seconds, report, say

CLASSES = 100
# Steps queued together, so that launching runs ahead as in training.
ROUND = 10
# Seconds to measure a row for, about; three rounds at the least.
ROW_SECONDS = 3
# Compiling with tuning takes minutes: only for the steps that matter most.
MAX_AUTOTUNE = {"resnet18-cifar.32.b512.bf16", "resnet50-cifar.64.b256.bf16", "resnet50-imagenet.64.b64.bf16"}
# Seconds that a way takes before its first step, about: none begins that would not end in time.
SETUP_SECONDS = {"graph": 15, "reduce-overhead": 75, "max-autotune": 240}


def parse(name):
    """Depth, stem and image size of a network's name."""
    kind, size = name.split(".")
    arch, stem = kind.split("-")
    return int(arch.removeprefix("resnet")), stem, int(size)


def wait(device):
    """Until the device has done all that was queued."""
    if device == "cuda":
        torch.cuda.synchronize()


def capture(step, device):
    """The step as a CUDA graph, after the side-stream warm-up that capturing asks for; on the CPU the step as it is."""
    if device == "cpu":
        return step
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


def measure(row, build, arguments):
    """Images per second of one row."""
    started = time.perf_counter()
    on = arguments.device
    step = build(row["network"], row["mode"], row["batch_size"], row["precision"], on)

    def round_of_steps():
        for _ in range(ROUND):
            step()

    if on == "cuda":
        torch.cuda.reset_peak_memory_stats()
    step()
    wait(on)
    setup = time.perf_counter() - started
    once = median_seconds(round_of_steps, 0, 1, lambda: wait(on))["median_s"]
    rounds = max(min(3, arguments.repeats), min(arguments.repeats, round(ROW_SECONDS / once)))
    timing = median_seconds(round_of_steps, 1, rounds, lambda: wait(on))
    timing = {key: value / ROUND for key, value in timing.items()}
    found = {"images_per_second": row["batch_size"] / timing["median_s"], **timing, "setup_s": setup, "rounds": rounds}
    if on == "cuda":
        found["peak_memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return found


def rows(verb, arguments):
    """All rows, those that matter most first: bf16 before f32, graphs (quick to set up) before compiled ways."""
    steps = [(name, int(batch)) for name in arguments.networks.split(",") for batch in arguments.batch_sizes.split(",")]
    if arguments.imagenet_batch and "resnet50-imagenet.64" in arguments.networks.split(","):
        steps.append(("resnet50-imagenet.64", arguments.imagenet_batch))
    found = []
    for precision in arguments.precisions.split(","):
        for compiled in (False, True):
            for name, batch in steps:
                step = f"{name}.b{batch}.{precision}"
                mode = "graph" if not compiled else "max-autotune" if step in MAX_AUTOTUNE else "reduce-overhead"
                found.append({"name": f"{verb}.{step}", "network": name, "batch_size": batch, "precision": precision,
                              "mode": mode})
    # The three that are tuned come before the other compiled ones of their precision.
    order = {"bf16": 0, "f32": 1}
    kind = {"graph": 0, "max-autotune": 1, "reduce-overhead": 2}
    return sorted(found, key=lambda row: (order.get(row["precision"], 2), kind[row["mode"]]))


def machine(device):
    """The GPU and its versions, for whoever reads the figures later."""
    if device == "cpu":
        return {"gpu": None}
    command = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
    try:
        driver = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = "unknown"
    return {"gpu": torch.cuda.get_device_name(), "driver": driver, "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version()}


def earlier(path):
    """Rows of an earlier call that need not be measured again."""
    if path is None or not pathlib.Path(path).exists():
        return []
    return [row for row in json.loads(pathlib.Path(path).read_text())["results"] if "cut" not in row]


def run(peer, verb, description, build):
    """Measures every row of a verb; `build(network, mode, batch, precision, device)` gives one step as a function without
    arguments."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="resnet18-cifar.32,resnet50-cifar.64,resnet50-imagenet.64")
    parser.add_argument("--batch-sizes", default="128,256,512")
    parser.add_argument("--imagenet-batch", type=int, default=64,
                        help="one more batch size of resnet50-imagenet.64; 0 for none")
    parser.add_argument("--precisions", default="bf16,f32")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu is for a rehearsal at toy size")
    parser.add_argument("--repeats", type=int, default=10, help="rounds of ten steps, at the most")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds; rows that would not end in time are cut")
    parser.add_argument("--list", action="store_true", help="print the rows and measure nothing")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    deadline = time.monotonic() + arguments.budget
    wanted = rows(verb, arguments)
    if arguments.list:
        for row in wanted:
            print(row["name"], row["mode"])
        return
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.exit(1, "no CUDA device: this measures one (--device cpu is for a rehearsal)\n")
    torch.backends.cudnn.benchmark = True
    # f32 means f32, as in Residua.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False

    results = earlier(arguments.out)
    known = {(row["name"], row["mode"]) for row in results}

    def save():
        report(peer, results, arguments.out, quiet=True, **machine(arguments.device), classes=CLASSES,
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
            row = row | measure(row, build, arguments)
            say(f"{row['name']}, {row['mode']}: {row['images_per_second']:.0f} images/s")
        except Exception as error:  # whatever a way fails with, the others are still wanted
            row = row | {"error": f"{type(error).__name__}: {error}"[:500]}
            say(f"{row['name']}, {row['mode']}: {row['error']}")
        results.append(row)
        save()
        gc.collect()
        torch._dynamo.reset()
        if arguments.device == "cuda":
            torch.cuda.empty_cache()
    save()

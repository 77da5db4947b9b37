#!/usr/bin/env python3
"""Residua beside PyTorch, ONNX Runtime and OpenVINO on the CPU, in one run: training steps, and features and logits in inference,
all in f32.

    python benches/peers/cpu.py --residua target/release/residua --threads 2 --out cpu.json
    python benches/peers/cpu.py --residua target/release/residua --threads 1 --batch-sizes 32,16,32,16 --out cpu1.json

Everybody takes turns, round by round, so that all see the same machine. A figure is the median over the rounds: seconds for a
step, and processor seconds of all threads, which other processes on the machine disturb less. PyTorch trains and infers in both memory
formats; the faster one counts. Its batch normalisation is folded into the convolutions, as is everybody's. ONNX Runtime and
OpenVINO take the same network; OpenVINO is told to compute in f32. A peer that is not installed is left out, and named.

Every peer's images are there, normalised; Residua's rows begin with bytes, and bring the features to the host.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

WORKS = ["train.resnet18-cifar.32", "train.resnet50-cifar.64", "extract.resnet18-cifar.32", "extract.resnet50-cifar.64"]
BATCH_SIZES = [128, 16, 128, 16]


def timed(step, seconds):
    """(seconds, processor seconds) of a step, on average over as many as fit."""
    count, start, cpu = 0, time.perf_counter(), time.process_time()
    while count == 0 or time.perf_counter() - start < seconds:
        step()
        count += 1
    return (time.perf_counter() - start) / count, (time.process_time() - cpu) / count


def torch_ways(torch, kind, depth, side, batch):
    """PyTorch's ways to do some work, by name."""
    import torch.nn.functional as functional

    from common import Extractor, network

    ways = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        images = torch.randn(batch, 3, side, side).contiguous(memory_format=layout)
        if kind == "train":
            model = network(depth, "cifar", 100).train().to(memory_format=layout)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
            labels = torch.randint(0, 100, (batch,))

            def step(model=model, optimizer=optimizer, images=images, labels=labels):
                optimizer.zero_grad(set_to_none=True)
                functional.cross_entropy(model(images), labels).backward()
                optimizer.step()
        else:
            model = Extractor(network(depth, "cifar", 100)).to(memory_format=layout)

            def step(model=model, images=images):
                with torch.inference_mode():
                    model(images)

        ways["pytorch " + str(layout).removeprefix("torch.")] = step
    return ways


def exported(torch, depth, side, batch):
    """The path of the network as ONNX, features and logits as outputs."""
    from common import Extractor, network

    torch.manual_seed(0)
    path = pathlib.Path(tempfile.mkdtemp()) / "network.onnx"
    images = torch.randn(batch, 3, side, side)
    torch.onnx.export(Extractor(network(depth, "cifar", 100)), (images,), str(path), dynamo=False)
    return path, images.numpy()


def onnxruntime_way(torch, depth, side, batch, threads):
    import onnxruntime

    path, images = exported(torch, depth, side, batch)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: images})


def openvino_way(torch, depth, side, batch, threads):
    import openvino

    path, images = exported(torch, depth, side, batch)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    request = compiled.create_infer_request()
    return lambda: request.infer([images])


def worker(threads):
    """Answers one line of JSON, [work, batch, seconds], with {way: [seconds, processor seconds]}, over and over."""
    import torch

    torch.set_num_threads(threads)
    versions = {"torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()}
    for peer in ("onnxruntime", "openvino"):
        try:
            versions[peer] = __import__(peer).__version__
        except ImportError:
            versions[peer] = None
    print(json.dumps(versions), flush=True)
    made = {}
    for line in sys.stdin:
        work, batch, seconds = json.loads(line)
        if (work, batch) not in made:
            kind, network, side = work.split(".")
            depth, side = int(network.removeprefix("resnet").split("-")[0]), int(side)
            ways = torch_ways(torch, kind, depth, side, batch)
            if kind == "extract":
                for peer, way in (("onnxruntime", onnxruntime_way), ("openvino", openvino_way)):
                    if versions[peer]:
                        ways[peer] = way(torch, depth, side, batch, threads)
            made[work, batch] = ways
        answers = {}
        for name, step in made[work, batch].items():
            step()
            answers[name] = timed(step, seconds)
        print(json.dumps(answers), flush=True)


def residua(arguments, work, batch):
    """(seconds, processor seconds) of a step of ours."""
    kind, network = work.split(".", 1)
    command = [arguments.residua, "bench", "--device", "cpu", "--threads", str(arguments.threads), "--arch", network,
               "--batch-size", str(batch), "--steps", "--only", kind, "--seconds", str(arguments.seconds), "--repeats", "1",
               "--json", "--quiet", *(["--instructions", arguments.instructions] if arguments.instructions else [])]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    (row,) = result["rows"]
    return (row["seconds"], row["cpu_seconds"]), result


def table(paths):
    """The results as Markdown: by seconds with several threads, by processor seconds with one."""
    for path in paths:
        document = json.loads(pathlib.Path(path).read_text())
        one = document["threads"] == 1
        key, ratio = ("cpu_seconds", "cpu_ratio") if one else ("seconds", "ratio")
        unit = "images per CPU second" if one else "images/s"
        print(f"| {unit} | Residua | PyTorch | ONNX Runtime | OpenVINO | to PyTorch | to the better of the others |")
        print("|---|---|---|---|---|---|---|")
        for row in document["results"]:
            ways, batch = row["ways"], row["batch_size"]
            speed = lambda name: f"{batch / ways[name][key]:.4g}" if name in ways else "-"
            torch_way = min((name for name in ways if name.startswith("pytorch")), key=lambda name: ways[name][key])
            others = [ways[name][ratio] for name in ("onnxruntime", "openvino") if name in ways]
            to_others = f"{min(others):.2f}" if others else "-"
            print(f"| `{row['work']}`, batch {batch} | {speed('residua')} | {speed(torch_way)} | {speed('onnxruntime')} | "
                  f"{speed('openvino')} | {ways[torch_way][ratio]:.2f} | {to_others} |")
        print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--residua", help="the built program")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="for each way, each round")
    parser.add_argument("--works", default=",".join(WORKS))
    parser.add_argument("--batch-sizes", default=",".join(map(str, BATCH_SIZES)), help="one for each work")
    parser.add_argument("--instructions", choices=["avx2", "avx512"],
                        help="the widest vector instructions for everybody, as far as they can be told")
    parser.add_argument("--out")
    parser.add_argument("--table", nargs="+", metavar="FILE", help="measure nothing: print results as Markdown")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(arguments.threads)
    if arguments.table:
        return table(arguments.table)
    if not arguments.residua:
        parser.error("--residua names the built program")

    from common import processor, report, say

    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    if arguments.instructions == "avx2":
        # ONNX Runtime has no such switch, and keeps the widest that it finds.
        environment |= {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
                        "OV_CPU_MAX_ISA": "AVX2"}
    peer = subprocess.Popen([sys.executable, __file__, "--worker", "--residua", "-", "--threads", str(arguments.threads)],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    versions = json.loads(peer.stdout.readline())
    works = list(zip(arguments.works.split(","), map(int, arguments.batch_sizes.split(","))))
    found, ours = {work: {} for work, _ in works}, None
    for number in range(arguments.rounds):
        for work, batch in works:
            timing, ours = residua(arguments, work, batch)
            peer.stdin.write(json.dumps([work, batch, arguments.seconds]) + "\n")
            peer.stdin.flush()
            for name, timing_of in {"residua": timing, **json.loads(peer.stdout.readline())}.items():
                found[work].setdefault(name, []).append(timing_of)
            say(f"round {number + 1} of {arguments.rounds}: {work}")
    peer.stdin.close()

    rows = []
    for work, batch in works:
        medians = {name: [statistics.median(column) for column in zip(*timings)] for name, timings in found[work].items()}
        ways = {}
        for name, (seconds, cpu_seconds) in medians.items():
            ways[name] = {"seconds": seconds, "cpu_seconds": cpu_seconds, "images_per_second": batch / seconds}
            # Paired: everybody's time over ours of the same round.
            pairs = list(zip(found[work][name], found[work]["residua"]))
            ways[name]["ratio"] = statistics.median(theirs[0] / own[0] for theirs, own in pairs)
            ways[name]["cpu_ratio"] = statistics.median(theirs[1] / own[1] for theirs, own in pairs)
            say(f"{work} b{batch} {name}: {batch / seconds:.1f} images/s, {cpu_seconds:.3f} CPU s a step; "
                f"Residua {ways[name]['ratio']:.2f} times as fast, {ways[name]['cpu_ratio']:.2f} by CPU seconds")
        rows.append({"work": work, "batch_size": batch, "ways": ways})
    absent = [name for name, version in versions.items() if version is None]
    for name in absent:
        say(f"{name} is not installed and was left out")
    report("cpu", rows, arguments.out, quiet=True, versions=versions, residua=ours["program"], processor=processor(),
           threads=arguments.threads, rounds=arguments.rounds, instructions=arguments.instructions or "all")


if __name__ == "__main__":
    main()

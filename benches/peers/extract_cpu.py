#!/usr/bin/env python3
"""Features and logits of ResNet-18 (CIFAR stem) on the CPU, as fast as a user of PyTorch gets them: inference mode, batch
normalisation folded into the convolutions, both memory formats.

    python benches/peers/extract_cpu.py --threads 2 --out extract_cpu.json
"""

import argparse

import torch

from common import Extractor, median_seconds, network, report, say


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--depth", type=int, choices=[18, 50], default=18)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile (needs a C++ compiler)")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        for compiled in [False, True] if arguments.compile else [False]:
            torch.manual_seed(0)
            model = Extractor(network(arguments.depth, "cifar", 100)).to(memory_format=layout)
            run = torch.compile(model) if compiled else model
            images = torch.randn(arguments.batch_size, 3, 32, 32).contiguous(memory_format=layout)
            with torch.inference_mode():
                timing = median_seconds(lambda: run(images), arguments.warm_up, arguments.repeats)
            name = str(layout).removeprefix("torch.")
            rate = arguments.batch_size / timing["median_s"]
            results.append({"memory_format": name, "compiled": compiled, "images_per_second": rate, **timing})
            say(f"{name}{', compiled' if compiled else ''}: {rate:.1f} images/s")
    report("extract_cpu", results, arguments.out, network=f"resnet{arguments.depth}, cifar stem", image=[3, 32, 32],
           batch_size=arguments.batch_size, precision="f32", batch_norm="folded", repeats=arguments.repeats)


if __name__ == "__main__":
    main()

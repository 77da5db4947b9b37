#!/usr/bin/env python3
"""A training step of ResNet-18 (CIFAR stem) on the CPU: zero_grad, forward, loss, backward, SGD with momentum.

    python benches/peers/train_step_cpu.py --threads 2 --out train_step_cpu.json

Both memory formats are measured; the faster one is the peer's figure.
"""

import argparse

import torch
import torch.nn.functional as F

from common import median_seconds, network, report, say


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--depth", type=int, choices=[18, 50], default=18)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        model = network(arguments.depth, "cifar", 100).train().to(memory_format=layout)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
        images = torch.randn(arguments.batch_size, 3, 32, 32).contiguous(memory_format=layout)
        labels = torch.randint(0, 100, (arguments.batch_size,))

        def step():
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()

        timing = median_seconds(step, arguments.warm_up, arguments.repeats)
        rate = arguments.batch_size / timing["median_s"]
        results.append({"memory_format": str(layout).removeprefix("torch."), "images_per_second": rate, **timing})
        say(f"{results[-1]['memory_format']}: {rate:.1f} images/s")
    report("train_step_cpu", results, arguments.out, network=f"resnet{arguments.depth}, cifar stem",
           image=[3, 32, 32], batch_size=arguments.batch_size, precision="f32", repeats=arguments.repeats)


if __name__ == "__main__":
    main()

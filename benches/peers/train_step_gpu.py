#!/usr/bin/env python3
"""Training steps of PyTorch on a CUDA device: channels_last, bf16 autocast or plain f32 (TF32 off), images already there.

    python benches/peers/train_step_gpu.py --out peer.json
    python benches/peers/train_step_gpu.py --networks resnet18-cifar.32 --batch-sizes 256 --precisions bf16 --out peer.json

Every step is measured in two ways: `graph`, the eager step captured in one CUDA graph, and a compiled one, `max-autotune` for the
three steps that steps.py lists and `reduce-overhead` elsewhere (torch.compile with CUDA graphs inside). The faster is the peer's
figure. Rows are named as Residua's are: train.resnet18-cifar.32.b512.bf16.

The file is written after every row. Called again with the same --out, it goes on with the rows that are missing. A way that fails
(memory, no compiler) is recorded with its error, and the others go on.
"""

import torch
import torch.nn.functional as F

from common import network
from steps import CLASSES, capture, parse, run


def build(name, mode, batch, precision, device):
    """One training step as a function without arguments."""
    depth, stem, size = parse(name)
    torch.manual_seed(0)
    model = network(depth, stem, CLASSES).to(device).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    images = torch.randn(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (batch,), device=device)

    def loss_of(images, labels):
        with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits = model(images)
        return F.cross_entropy(logits.float(), labels)

    if mode != "graph":
        loss_of = torch.compile(loss_of, mode=mode)

    def step():
        # Also inside a capture: backward then writes each gradient afresh, at the same address on every replay.
        optimizer.zero_grad(set_to_none=True)
        loss_of(images, labels).backward()
        optimizer.step()

    return capture(step, device) if mode == "graph" else step


if __name__ == "__main__":
    run("train_step_gpu", "train", __doc__, build)

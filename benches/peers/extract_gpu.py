#!/usr/bin/env python3
"""Features and logits of PyTorch on a CUDA device, as fast as a user gets them: evaluation mode, batch normalisation folded into
the convolutions, channels_last, weights and activations in bf16 or plain f32 (TF32 off).

    python benches/peers/extract_gpu.py --out peer-extract.json
    python benches/peers/extract_gpu.py --device cpu --networks resnet18-cifar.8 --batch-sizes 2 --out rehearsal.json

Every pass is measured in two ways: `graph`, the eager pass captured in one CUDA graph, and a compiled one, frozen (weights are
constants to the compiler), `max-autotune` for the three that steps.py lists and `reduce-overhead` elsewhere. The faster is
the peer's figure. Rows are named as Residua's are: extract.resnet18-cifar.32.b512.bf16.

The peer is spared what Residua's rows hold besides: its images are there in the precision of the network and normalised, and its
results stay on the device, where Residua turns bytes into images and brings the results to the host.

The file is written after every row, and goes on where an earlier call was cut, as that of train_step_gpu.py.
"""

import torch
import torch._inductor.config

from common import Extractor, network
from steps import CLASSES, capture, parse, run


def build(name, mode, batch, precision, device):
    """One pass over a batch as a function without arguments."""
    depth, stem, size = parse(name)
    dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[precision]
    torch.manual_seed(0)
    model = Extractor(network(depth, stem, CLASSES)).to(device, dtype, memory_format=torch.channels_last).eval()
    images = torch.randn(batch, 3, size, size, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    if mode != "graph":
        model = torch.compile(model, mode=mode)

    @torch.no_grad()
    def step():
        return model(images)

    return capture(step, device) if mode == "graph" else step


if __name__ == "__main__":
    torch._inductor.config.freezing = True
    run("extract_gpu", "extract", __doc__, build)

"""What the peers share: networks, timing, and the description of the machine in every result."""

import json
import pathlib
import platform
import statistics
import sys
import time

import torch
import torchvision
from torch import nn
from torch.fx.experimental.optimization import fuse


def network(depth, stem, classes):
    """torchvision's ResNet; the `cifar` stem is a 3x3 convolution of stride 1 without pooling."""
    build = {18: torchvision.models.resnet18, 50: torchvision.models.resnet50}[depth]
    model = build(num_classes=classes)
    if stem == "cifar":
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
    return model


class Extractor(nn.Module):
    """Features and logits of a network in inference, its batch normalisation folded into the convolutions."""

    def __init__(self, model):
        super().__init__()
        self.classifier = model.fc
        model.fc = nn.Identity()
        self.body = fuse(model.eval())

    def forward(self, images):
        features = self.body(images)
        return features, self.classifier(features)


def median_seconds(step, warm_up, repeats, wait=lambda: None):
    """Median, smallest and largest duration of `step`, each timed to its end."""
    for _ in range(warm_up):
        step()
    wait()
    durations = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        wait()
        durations.append(time.perf_counter() - start)
    return {"median_s": statistics.median(durations), "min_s": min(durations), "max_s": max(durations)}


def processor():
    """The processor's name, where the system tells."""
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def report(name, results, out, quiet=False, **settings):
    """Prints one JSON document with everything needed to read the figures later; writes it to a file on request, whole or not
    at all."""
    document = {
        "peer": name,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
        "cpu": processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        **settings,
        "results": results,
    }
    text = json.dumps(document, indent=2)
    if not (quiet and out):
        print(text)
    if out:
        temporary = pathlib.Path(f"{out}.part")
        temporary.write_text(text + "\n")
        temporary.replace(out)


def say(text):
    """Progress, apart from the JSON on standard output."""
    print(text, file=sys.stderr, flush=True)

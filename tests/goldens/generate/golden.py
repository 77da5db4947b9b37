"""A golden file: named tensors of several cases, and the versions that made them."""

import json
import platform
import zlib

import safetensors
import safetensors.torch
import torch
import torchvision


class Golden:
    """Collects tensors as `case.name`; scalars (stride, padding, learning rates) become tensors of no dimensions."""

    def __init__(self):
        self.tensors = {}

    def add(self, case, **values):
        for name, value in values.items():
            self.put(f"{case}.{name}", value)

    def put(self, name, value):
        if not isinstance(value, torch.Tensor):
            value = torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float64)
        assert name not in self.tensors, f"{name} is recorded twice"
        # clone: safetensors refuses tensors that share memory, and a copy cannot change later.
        self.tensors[name] = value.detach().contiguous().clone()

    def save(self, path, **notes):
        path.parent.mkdir(parents=True, exist_ok=True)
        made_with = {
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "safetensors": safetensors.__version__,
            "python": platform.python_version(),
            **notes,
        }
        safetensors.torch.save_file(self.tensors, path, metadata={"made_with": json.dumps(made_with, sort_keys=True)})


def generator(name):
    """A random generator that depends on the name of the case alone, so that cases can be added in any order."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def normal(name, *shape, dtype=torch.float64):
    """Standard normal numbers for the named tensor."""
    return torch.randn(*shape, generator=generator(name), dtype=dtype)


def uniform(name, low, high, *shape, dtype=torch.float64):
    """Numbers spread evenly over low..high for the named tensor."""
    return low + (high - low) * torch.rand(*shape, generator=generator(name), dtype=dtype)

"""Classifier heads that compare directions, forward and backward."""

import torch
import torch.nn.functional as F

from generate.golden import Golden, normal
from generate.operations import backward, leaf


def cosines(x, weight, scale):
    return scale * F.linear(F.normalize(x, dim=1), F.normalize(weight, dim=1))


# name: batch, features, classes, the scale's parameter
COSINES = {"odd": (5, 7, 3, 30.0), "one_class": (3, 4, 1, -1.5), "wide": (2, 33, 35, 0.25)}


def cosine():
    """Twice each: the scale as it is, and through softplus."""
    golden = Golden()
    for case, (n, features, classes, raw) in COSINES.items():
        for softplus in (0, 1):
            name = f"cosine.{case}.{softplus}"
            x, w = leaf(normal(f"{name}.x", n, features)), leaf(normal(f"{name}.w", classes, features))
            scale = leaf(torch.tensor([raw], dtype=torch.float64))
            y = cosines(x, w, F.softplus(scale) if softplus else scale)
            case_name = f"{case}_softplus" if softplus else case
            golden.add(case_name, x=x, w=w, scale=scale, softplus=softplus, y=y)
            golden.add(case_name, **backward(name, y, x=x, w=w, scale=scale))
    return golden


def cosine_relu_linear():
    """Cosines times a raw scale, a rectifier, a linear layer; `negative` has a scale below zero."""
    golden = Golden()
    cases = {"odd": (5, 7, 6, 3, 30.0), "negative": (4, 9, 8, 5, -2.0), "two_levels": (3, 16, 11, 87, 30.0)}
    for case, (n, features, hidden, classes, raw) in cases.items():
        name = f"cosine_relu_linear.{case}"
        x, directions = leaf(normal(f"{name}.x", n, features)), leaf(normal(f"{name}.directions", hidden, features))
        scale = leaf(torch.tensor([raw], dtype=torch.float64))
        w, b = leaf(normal(f"{name}.w", classes, hidden)), leaf(normal(f"{name}.b", classes))
        y = F.linear(F.relu(cosines(x, directions, scale)), w, b)
        golden.add(case, x=x, directions=directions, scale=scale, w=w, b=b, y=y)
        golden.add(case, **backward(name, y, x=x, directions=directions, scale=scale, w=w, b=b))
    return golden


def make(folder):
    cosine().save(folder / "cosine.safetensors")
    cosine_relu_linear().save(folder / "cosine_relu_linear.safetensors")

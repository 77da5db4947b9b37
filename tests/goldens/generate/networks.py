"""Whole narrow networks in f64, one training step each: logits, loss, the gradient of every parameter, the
running statistics afterwards.

Convolutions and the classifier of ResNet-18 and ResNet-50 are those of trajectories/resnet{18,50}_init (f32
values, exact in f64); a file holds only what differs from there, as `parameter.NAME`: batch norm parameters away
from 1 and 0 (so that every gradient matters) and, for the ImageNet stem, the 7x7 convolution. The files of
ResNet-20 (He et al.'s, shortcut options a and b) hold every parameter.

Names: `input` (NCHW), `labels`, `logits`, `loss` (mean over the batch), `parameter.NAME`, `gradient.NAME`,
`running.NAME` (after the step), `logits_eval` (in eval mode, with the running statistics after the step).
"""

import torch
import torch.nn.functional as F
from torch import nn

from .golden import Golden, generator, normal, uniform
from .resnet import ResNet, verify
from .trajectories import CLASSES, WIDTH, initial_network

RESNET20_WIDTH = 2

# file: depth, stem, shortcut option, batch, height, width of the images
NETWORKS = {
    "resnet18_cifar": (18, "cifar", "b", 4, 16, 16),
    "resnet18_imagenet": (18, "imagenet", "b", 4, 33, 33),
    "resnet50_cifar": (50, "cifar", "b", 4, 16, 16),
    "resnet50_imagenet": (50, "imagenet", "b", 4, 35, 33),
    "resnet20_option_a": (20, "cifar", "a", 3, 15, 13),
    "resnet20_option_b": (20, "cifar", "b", 3, 15, 13),
}


def build(name, depth, stem, option):
    """The network, and the names of its parameters that the initial weights on file do not have."""
    torch.manual_seed(depth)
    network = ResNet(depth, WIDTH.get(depth, RESNET20_WIDTH), stem, CLASSES, option)
    own = {key for key, _ in network.named_parameters()}
    if not network.he_style:
        shared = initial_network(depth).state_dict()
        if stem == "imagenet":
            shared["conv1.weight"] = network.conv1.weight.detach()
            own = {"conv1.weight"}
        else:
            own = set()
        network.load_state_dict(shared, strict=True)
    network = network.double()
    with torch.no_grad():
        for prefix, module in network.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                channels = module.num_features
                module.weight.copy_(uniform(f"{name}.{prefix}.weight", 0.5, 1.5, channels))
                module.bias.copy_(0.2 * normal(f"{name}.{prefix}.bias", channels))
                own |= {f"{prefix}.weight", f"{prefix}.bias"}
    return network.train(), own


def record(name, depth, stem, option, batch, height, image_width):
    network, own = build(name, depth, stem, option)
    x = normal(f"{name}.input", batch, 3, height, image_width)
    labels = torch.randint(0, CLASSES, (batch,), generator=generator(f"{name}.labels"))
    golden = Golden()
    golden.put("input", x)
    golden.put("labels", labels)
    logits = network(x)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    golden.put("logits", logits)
    golden.put("loss", loss)
    for key, parameter in network.named_parameters():
        if key in own:
            # Convolutions and the classifier began as f32: stored so, they are still exact.
            golden.put(f"parameter.{key}", parameter.float() if parameter.dim() > 1 else parameter)
        golden.put(f"gradient.{key}", parameter.grad)
    for key, buffer in network.named_buffers():
        if not key.endswith("num_batches_tracked"):
            golden.put(f"running.{key}", buffer)
    with torch.no_grad():
        golden.put("logits_eval", network.eval()(x))
    return golden


def make(folder):
    verify()
    for name, configuration in NETWORKS.items():
        depth, stem, option = configuration[:3]
        notes = dict(depth=depth, stem=stem, option=option, width=WIDTH.get(depth, RESNET20_WIDTH))
        record(name, *configuration).save(folder / f"{name}.safetensors", **notes)

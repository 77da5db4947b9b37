#!/usr/bin/env python3
"""Compares the program's images with Pillow's, and a network's logits with PyTorch's fed by Pillow.

    compare_pillow.py pixels RESIDUA IMAGES [--count N] [--sizes 32,224]
    compare_pillow.py logits RESIDUA IMAGES --weights cifar100_resnet20.pth [--count N] [--mean R,G,B] [--std R,G,B]

IMAGES is a zip or folder of images; the first N of them in numeric order are taken. `pixels` decodes each as stored and, for every
size, resizes it to a square, and says how many images and pixels differ from `Image.open(f).convert("RGB").resize((s, s),
BILINEAR)`. `logits` runs a CIFAR ResNet of He et al. (names of PyTorch's zoo of such networks, option B) over the images at 32 pixels
and prints the largest relative difference of a row, |a - b| / |b| in the maximum norm, and how many predictions differ.

Exit code 1 if a pixel or a prediction differs, or a row by more than 1e-4. Needs pillow, numpy and blake3; `logits` also torch.
"""

import argparse
import io
import json
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import zipfile

import blake3
import numpy
from PIL import Image

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".ppm")


def natural(name):
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"(\d+)", name) if part]


def contents(place, count):
    """(name, bytes) of the first images."""
    if place.is_dir():
        names = sorted((str(p.relative_to(place)) for p in place.rglob("*") if p.suffix.lower() in ENDINGS), key=natural)
        return [(name, (place / name).read_bytes()) for name in names[:count]]
    with zipfile.ZipFile(place) as archive:
        names = sorted((name for name in archive.namelist() if name.lower().endswith(ENDINGS)), key=natural)
        return [(name, archive.read(name)) for name in names[:count]]


def by_pillow(data, size):
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return numpy.asarray(image.resize((size, size), Image.Resampling.BILINEAR) if size else image)


def digest(pixels):
    """The digest of one image, as `residua data inspect` defines it."""
    return blake3.blake3(struct.pack("<I", pixels.shape[1]) + pixels.tobytes()).digest()


def checksum(images):
    """The checksum of unlabelled images, as `residua data inspect` defines it."""
    hasher = blake3.blake3()
    for pixels in images:
        hasher.update(struct.pack("<IIq", pixels.shape[1], pixels.shape[0], -1) + digest(pixels))
    return hasher.hexdigest()


def by_residua(program, data):
    done = subprocess.run([program, "data", "inspect", "--json", "--quiet", data], capture_output=True, check=True)
    return json.loads(done.stdout)["sets"][0]["checksum"]


def pixels(arguments, images):
    failed = False
    for size in [0, *map(int, arguments.sizes.split(","))]:
        option = f",size={size}" if size else ""
        expected = [by_pillow(data, size) for _, data in images]
        same = by_residua(arguments.residua, f"images:{arguments.images}?limit={len(images)}{option}") == checksum(expected)
        different = []
        if not same:
            failed = True
            with tempfile.TemporaryDirectory() as folder:
                for (name, data), pillow in zip(images, expected):
                    path = pathlib.Path(folder) / ("image" + pathlib.Path(name).suffix)
                    path.write_bytes(data)
                    if by_residua(arguments.residua, f"images:{path}?{option[1:]}") != checksum([pillow]):
                        different.append(name)
        what = f"at {size} x {size}" if size else "as stored"
        verdict = "all pixels are Pillow's" if same else f"{len(different)} differ, the first: {different[:3]}"
        print(f"{len(images)} images {what}: {verdict}")
    return failed


def resnet(state):
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.downsample = None
            if stride != 1 or inputs != outputs:
                self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

        def forward(self, x):
            out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
            return (out + (x if self.downsample is None else self.downsample(x))).relu()

    class Net(nn.Module):
        def __init__(self, blocks, classes):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
            channels = 16
            for stage, outputs in enumerate((16, 32, 64), 1):
                layers = []
                for index in range(blocks):
                    layers.append(Block(channels, outputs, 2 if stage > 1 and index == 0 else 1))
                    channels = outputs
                setattr(self, f"layer{stage}", nn.Sequential(*layers))
            self.fc = nn.Linear(64, classes)

        def forward(self, x):
            x = self.bn1(self.conv1(x)).relu()
            return self.fc(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))

    blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("layer1."))
    net = Net(blocks, state["fc.weight"].shape[0])
    net.load_state_dict(state)
    return net.eval()


def logits(arguments, images):
    import torch

    mean, std = ([float(x) for x in text.split(",")] for text in (arguments.mean, arguments.std))
    net = resnet(torch.load(arguments.weights, weights_only=True))
    batch = numpy.stack([by_pillow(data, 32) for _, data in images]).transpose(0, 3, 1, 2)
    with torch.no_grad():
        inputs = torch.from_numpy(batch).float() / 255
        inputs = (inputs - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        theirs = torch.cat([net(part) for part in inputs.split(250)]).double().numpy()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [arguments.residua, "extract", "--quiet", "--device", "cpu", "--checkpoint", arguments.weights,
             "--normalize", f"{arguments.mean}/{arguments.std}", "--size", "32", "--out", f"{folder}/cache",
             "--data", f"images:{arguments.images}?limit={len(images)}"], check=True, stdout=subprocess.DEVNULL)
        ours = numpy.load(f"{folder}/cache/logits.npy").astype(float)
    worst = (abs(ours - theirs).max(1) / abs(theirs).max(1)).max()
    other = int((ours.argmax(1) != theirs.argmax(1)).sum())
    print(f"logits of {len(images)} images: {worst:.2e} apart at most, {other} predictions differ")
    return worst > 1e-4 or other > 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pixels", "logits"])
    parser.add_argument("residua", type=pathlib.Path)
    parser.add_argument("images", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--sizes", default="32,224")
    parser.add_argument("--weights")
    parser.add_argument("--mean", default="0.5070,0.4865,0.4409")
    parser.add_argument("--std", default="0.2673,0.2564,0.2761")
    arguments = parser.parse_args()
    images = contents(arguments.images, arguments.count)
    return {"pixels": pixels, "logits": logits}[arguments.what](arguments, images)


sys.exit(main())

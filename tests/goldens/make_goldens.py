#!/usr/bin/env python3
"""Records what PyTorch computes on the CPU, for the parity tests in tests/it/parity.

    python3 -m venv v
    v/bin/pip install torch torchvision numpy safetensors
    v/bin/python tests/goldens/make_goldens.py            # everything
    v/bin/python tests/goldens/make_goldens.py operations # one family

Every tensor is stored in PyTorch's own layout (NCHW activations, OIHW weights). The same versions on the
same machine write the same bytes again: one thread, deterministic algorithms, every random number from a seed
derived from the name of its case. The versions that made a file are in its safetensors metadata, as JSON under
the one key `made_with` (one key, because the format does not fix the order of several).
"""

import argparse
import pathlib
import time

import torch

from generate import heads, levels, losses, networks, operations, optimizers, trajectories

FAMILIES = {
    "operations": operations.make,
    "heads": heads.make,
    "losses": losses.make,
    "optimizers": optimizers.make,
    "trajectories": trajectories.make,
    "networks": networks.make,
    "levels": levels.make,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"any of: {', '.join(FAMILIES)}")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent)
    arguments = parser.parse_args()
    unknown = set(arguments.families) - set(FAMILIES)
    if unknown:
        parser.error(f"no such family: {', '.join(sorted(unknown))}; there are {', '.join(FAMILIES)}")

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name, make in FAMILIES.items():
        if arguments.families and name not in arguments.families:
            continue
        started = time.perf_counter()
        make(arguments.out / name)
        written = [path for path in (arguments.out / name).rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in written)
        print(f"{name}: {len(written)} files, {size / 1e3:.0f} kB, {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()

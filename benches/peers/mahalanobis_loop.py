#!/usr/bin/env python3
"""Mahalanobis scores the way many notebooks compute them: one sample at a time, a matrix product of all class
differences with the precision, of which only the diagonal is used.

    python benches/peers/mahalanobis_loop.py --threads 2 --out mahalanobis_loop.json

The loop's time per sample does not depend on their number, so a subset is timed and scaled.
"""

import argparse
import time

import numpy as np
import torch

from common import report, say


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="for the record; set OMP_NUM_THREADS to enforce it")
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--subset", type=int, default=2_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    random = np.random.default_rng(0)
    means = random.standard_normal((arguments.classes, arguments.dimension)).astype(np.float32)
    residuals = random.standard_normal((8 * arguments.dimension, arguments.dimension)).astype(np.float32)
    precision = np.linalg.pinv(residuals.T @ residuals / len(residuals), hermitian=True)
    features = random.standard_normal((arguments.subset, arguments.dimension)).astype(np.float32)

    def score(samples):
        scores = []
        for sample in samples:
            differences = means - sample
            distances = np.diag(differences @ precision @ differences.T)
            scores.append(-np.min(distances))
        return np.array(scores)

    score(features[:50])
    start = time.perf_counter()
    scores = score(features)
    seconds = time.perf_counter() - start
    assert np.isfinite(scores).all() and len(scores) == arguments.subset
    scaled = seconds * arguments.samples / arguments.subset
    say(f"{1e6 * seconds / arguments.subset:.0f} us a sample, {scaled:.1f} s for {arguments.samples} samples")
    results = [{"seconds": seconds, "samples": arguments.subset, "scaled_seconds": scaled}]
    report("mahalanobis_loop", results, arguments.out, numpy=np.__version__, dimension=arguments.dimension,
           classes=arguments.classes, scaled_to_samples=arguments.samples)


if __name__ == "__main__":
    main()

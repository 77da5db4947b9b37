#!/usr/bin/env python3
"""Scores of rows of features the way a notebook computes them with PyTorch: largest probability, largest logit and energy,
Mahalanobis, ViM, NECO; operation by operation, vectorised, f32 without TF32.

    python benches/peers/row_scores.py --device cuda --out row-scores.json
    python benches/peers/row_scores.py --device cpu --rows 2000 --columns 64 --classes 10 --repeats 3     # a rehearsal

Everything lies on the device before the clock starts. What is fitted is random: it changes no operation. Distances to the
class means go class by class, because all differences at once would be rows x classes x columns numbers; and, faster but with
a difference of large numbers, by torch.cdist.
"""

import argparse

import torch

from common import median_seconds, report, say


class Scores:
    """What each score needs, and the score of every row."""

    def __init__(self, rows, columns, classes, device):
        random = torch.Generator(device=device).manual_seed(0)
        normal = lambda *shape: torch.randn(*shape, generator=random, device=device)
        self.features = normal(rows, columns)
        self.logits = normal(rows, classes)
        self.means = normal(classes, columns)
        self.whitening = normal(columns, columns) / columns**0.5
        principal = min(classes, columns)
        self.origin = normal(columns)
        self.residual = torch.linalg.qr(normal(columns, max(columns - principal // 2, 1)))[0]
        self.principal = torch.linalg.qr(normal(columns, principal))[0]
        self.deviation = 0.5 + torch.rand(columns, generator=random, device=device)

    def logit_scores(self):
        return (torch.softmax(self.logits, 1).amax(1), self.logits.amax(1), torch.logsumexp(self.logits, 1))

    def mahalanobis(self):
        whitened, means = self.features @ self.whitening, self.means @ self.whitening
        distances = [(whitened - mean).square().sum(1) for mean in means]
        return -torch.stack(distances).amin(0)

    def mahalanobis_cdist(self):
        return -torch.cdist(self.features @ self.whitening, self.means @ self.whitening).amin(1).square()

    def vim(self):
        energy = torch.logsumexp(self.logits, 1)
        return energy - ((self.features - self.origin) @ self.residual).norm(dim=1)

    def neco(self):
        prepared = (self.features - self.origin) / self.deviation
        return (prepared @ self.principal).norm(dim=1) / prepared.norm(dim=1)

    def all(self):
        return (*self.logit_scores(), self.mahalanobis(), self.vim(), self.neco())

    def all_cdist(self):
        return (*self.logit_scores(), self.mahalanobis_cdist(), self.vim(), self.neco())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=512)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    is_cuda = arguments.device.startswith("cuda")
    wait = torch.cuda.synchronize if is_cuda else lambda: None

    scores = Scores(arguments.rows, arguments.columns, arguments.classes, arguments.device)
    results = []
    with torch.inference_mode():
        for name in ["logit_scores", "mahalanobis", "mahalanobis_cdist", "vim", "neco", "all", "all_cdist"]:
            score = getattr(scores, name)
            found = score()
            found = found if isinstance(found, tuple) else (found,)
            assert all(values.shape == (arguments.rows,) and values.isfinite().all() for values in found), name
            timing = median_seconds(score, 2, arguments.repeats, wait)
            say(f"{name}: {1e3 * timing['median_s']:.2f} ms")
            results.append({"name": name, **timing})
    card = torch.cuda.get_device_name() if is_cuda else None
    report("row_scores", results, arguments.out, card=card, rows=arguments.rows, columns=arguments.columns,
           classes=arguments.classes)


if __name__ == "__main__":
    main()

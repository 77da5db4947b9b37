"""Losses beyond plain cross-entropy: between two levels of classes, for outliers, with weights of classes."""

import torch
import torch.nn.functional as F

from generate.golden import Golden, generator, normal
from generate.operations import leaf

# Superclass of each of 11 subclasses; one superclass has a single subclass.
PARENTS = torch.tensor([0, 2, 1, 0, 2, 3, 0, 2, 2, 1, 0])
SUPERCLASSES = 4


def record(golden, case, loss, **leaves):
    """The mean loss and the gradients of the leaves, zero where none flows."""
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, retain_graph=True)
    golden.add(case, loss=loss)
    for (name, value), gradient in zip(leaves.items(), gradients):
        golden.add(case, **{f"d{name}": torch.zeros_like(value) if gradient is None else gradient})


def log_aggregated(sub, temperature):
    """Logarithm of the subclass probabilities summed up within superclasses."""
    members = F.one_hot(PARENTS, SUPERCLASSES).to(sub.dtype)
    return (F.softmax(sub / temperature, dim=1) @ members).log()


def kl(log_p, log_q):
    """KL(p, q), averaged over the batch."""
    return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


def two_levels():
    """The divergence between a superclass head and a subclass head, for every direction, side and two temperatures."""
    golden = Golden()
    sup = leaf(2.0 * normal("two_levels.super", 6, SUPERCLASSES))
    sub = leaf(2.0 * normal("two_levels.sub", 6, len(PARENTS)))
    for direction in ("super_agg", "agg_super", "js"):
        for detached in ("none", "super", "sub"):
            for temperature in (1.0, 2.5):
                p = F.log_softmax((sup.detach() if detached == "super" else sup) / temperature, dim=1)
                q = log_aggregated(sub.detach() if detached == "sub" else sub, temperature)
                middle = ((p.exp() + q.exp()) / 2).log()
                loss = {
                    "super_agg": kl(p, q),
                    "agg_super": kl(q, p),
                    "js": (kl(p, middle) + kl(q, middle)) / 2,
                }[direction]
                case = f"{direction}-{detached}-{temperature}".replace(".", "_")
                golden.add(case, super=sup, sub=sub, parents=PARENTS, temperature=temperature)
                record(golden, case, loss, super=sup, sub=sub)
    return golden


def teacher():
    """KL(teacher, aggregated subclasses): the teacher over superclasses is constant."""
    golden = Golden()
    for case, temperature in {"plain": 1.0, "warm": 2.5}.items():
        teacher = 3.0 * normal(f"teacher.{case}.teacher", 5, SUPERCLASSES)
        sub = leaf(2.0 * normal(f"teacher.{case}.sub", 5, len(PARENTS)))
        loss = kl(F.log_softmax(teacher / temperature, dim=1), log_aggregated(sub, temperature))
        golden.add(case, teacher=teacher, sub=sub, parents=PARENTS, temperature=temperature)
        record(golden, case, loss, sub=sub)
    return golden


def uniform_target():
    """Outlier exposure of Hendrycks et al. (2019): cross-entropy to the uniform distribution, as its authors write it."""
    golden = Golden()
    cases = {"odd": (5, 7, 2.0), "two_classes": (3, 2, 1.0), "huge": (4, 11, 1000.0)}
    for case, (n, classes, scale) in cases.items():
        logits = leaf(scale * normal(f"uniform_target.{case}", n, classes))
        golden.add(case, logits=logits)
        record(golden, case, -(logits.mean(1) - torch.logsumexp(logits, dim=1)).mean(), logits=logits)
    return golden


def energy_margin():
    """Liu et al. (2020): squared hinges on the energy, the mean over inliers plus the mean over outliers."""
    golden = Golden()
    cases = {
        "both": (9, 7, 2.0, -4.0, -3.45),
        "all_beyond": (6, 5, 1.0, 9.0, -9.0),
        "all_short": (7, 11, 4.0, -25.0, -1.0),
    }
    for case, (n, classes, scale, inside, outside) in cases.items():
        logits = leaf(scale * normal(f"energy_margin.{case}", n, classes))
        outlier = torch.randint(0, 2, (n,), generator=generator(f"energy_margin.{case}.outlier"))
        outlier[0], outlier[1] = 0, 1
        energy = -torch.logsumexp(logits, dim=1)
        loss = F.relu(energy[outlier == 0] - inside).square().mean()
        loss = loss + F.relu(outside - energy[outlier == 1]).square().mean()
        golden.add(case, logits=logits, outlier=outlier, inside=inside, outside=outside)
        record(golden, case, loss, logits=logits)
    return golden


def class_weights():
    """`CrossEntropyLoss(weight=w)`: the sum of weighted losses over the sum of weights."""
    golden = Golden()
    for case, (n, classes) in {"odd": (9, 5), "one_sample": (1, 3), "unseen_class": (4, 20)}.items():
        logits = leaf(2.0 * normal(f"class_weights.{case}", n, classes))
        labels = torch.randint(0, classes, (n,), generator=generator(f"class_weights.{case}.labels"))
        weights = torch.rand(classes, generator=generator(f"class_weights.{case}.weights"), dtype=torch.float64) + 0.1
        golden.add(case, logits=logits, labels=labels, weights=weights)
        record(golden, case, F.cross_entropy(logits, labels, weight=weights), logits=logits)
    return golden


def make(folder):
    families = {
        "two_levels": two_levels(),
        "teacher": teacher(),
        "uniform_target": uniform_target(),
        "energy_margin": energy_margin(),
        "class_weights": class_weights(),
    }
    for name, golden in families.items():
        golden.save(folder / f"{name}.safetensors")

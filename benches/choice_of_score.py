#!/usr/bin/env python3
"""Which score to take for a network, judged by networks that had no say: the best fixed score of the others, the score that tuning on held-out
classes puts first, and the score that did best on the networks most alike in neural collapse.

    python benches/choice_of_score.py RUN RUN ...

Each RUN is a folder that `residua ood --tune` wrote, with the output of `residua collapse --train CACHE` in RUN/collapse. A choice loses the mean AUROC
over the run's OOD sets that the best score there has more, in points.
"""

import json
import sys

import numpy as np

NEIGHBOURS = 3


def read(folder):
    with open(f"{folder}/metrics.json") as file:
        metrics = json.load(file)
    with open(f"{folder}/collapse/collapse.json") as file:
        collapse = json.load(file)["checkpoints"][0]
    sets = [entry["name"] for entry in metrics["datasets"]]
    tuned = {score["chosen"]: score for score in metrics["tuning"]["scores"]}
    rows = {}
    for score in metrics["methods"]:
        held_out = next(one["auroc"] for one in tuned[score]["candidates"] if one["score"] == score)
        on_ood = np.mean([metrics["ood"][name][score]["auroc"] for name in sets])
        rows[score.split(":")[0]] = (held_out, on_ood)
    return rows, collapse, metrics


def likeness(collapse, metrics):
    """What is known of a representation without OOD data, on scales on which networks can be compared."""
    log = lambda value: np.log10(max(value, 1e-6))
    nc = [log(collapse[key]) for key in ("nc1", "nc2_equinorm", "nc2_equiangular", "nc3")] + [collapse["nc4"]]
    size = [log(collapse["classes"]), log(collapse["dimension"] / collapse["classes"])]
    return np.array(nc + size + [collapse["train_accuracy"], metrics["id"]["accuracy"]])


runs = sys.argv[1:]
data = [read(run) for run in runs]
methods = sorted(set.intersection(*(set(rows) for rows, _, _ in data)))
held_out = np.array([[rows[method][0] for method in methods] for rows, _, _ in data])
on_ood = np.array([[rows[method][1] for method in methods] for rows, _, _ in data])
alike = np.array([likeness(collapse, metrics) for _, collapse, metrics in data])
alike = (alike - alike.mean(0)) / (alike.std(0) + 1e-12)


def place(values):
    return np.argsort(np.argsort(values)) / (len(values) - 1)


places = np.array([place(row) for row in on_ood])
lost = {name: [] for name in ("fixed", "tuning", "advice", "advice+tuning")}
print(f"{'network':24} {'NC1':>6} {'accuracy':>8}  {'best score':28} lost by: fixed, tuning, advice, both; correlation of places")
for index, run in enumerate(runs):
    others = [other for other in range(len(runs)) if other != index]
    distance = np.linalg.norm(alike[others] - alike[index], axis=1)
    nearest = np.array(others)[np.argsort(distance)[:NEIGHBOURS]]
    # A choice by places, so that a network on which all scores differ much does not decide for all.
    choice = {
        "fixed": np.argmax(places[others].mean(0)),
        "tuning": np.argmax(held_out[index]),
        "advice": np.argmax(places[nearest].mean(0)),
        "advice+tuning": np.argmax(places[nearest].mean(0) + place(held_out[index])),
    }
    best = on_ood[index].max()
    for name, chosen in choice.items():
        lost[name].append(100 * (best - on_ood[index, chosen]))
    said = ", ".join(f"{methods[chosen]} {lost[name][-1]:.2f}" for name, chosen in choice.items())
    correlation = np.corrcoef(place(held_out[index]), places[index])[0, 1]
    _, collapse, metrics = data[index]
    top = f"{methods[int(np.argmax(on_ood[index]))]} {100 * best:.2f}"
    print(f"{run.split('/')[-1]:24} {collapse['nc1']:6.2f} {100 * metrics['id']['accuracy']:8.2f}  {top:28} {said}; {correlation:.2f}")
print(f"{len(runs)} networks, {len(methods)} scores; AUROC points lost against the best score of each network, mean and worst:")
for name, values in lost.items():
    print(f"  {name:14} {np.mean(values):5.2f} {np.max(values):6.2f}")

#!/usr/bin/env python3
"""Prints the predictions of `residua bench --model --out FILE` as Markdown tables, for benches/README.md.

    benches/model_table.py FILE...
"""

import json
import sys

# Operations with a shape each get a line only if they take at least this share of the step.
LEAST_SHARE = 0.01


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def steps(models):
    rows = []
    for model in models:
        for step in model["steps"]:
            rows.append([
                f"`{step['name']}`",
                f"{step['predicted_images_per_second']:,.0f}",
                number(1e3 * step["predicted_seconds"]),
                f"{step['floor_images_per_second']:,.0f}",
                f"{step['floor_seconds'] / step['predicted_seconds']:.0%}",
                str(step["launches"]),
            ])
    table(["step", "predicted images/s", "ms", "at the floors", "share", "launches"], rows)


def calls(step):
    total = step["predicted_seconds"]
    rows, rest, rest_floor, rest_calls = [], 0.0, 0.0, 0
    for call in sorted(step["calls"], key=lambda call: -call["count"] * call["predicted_seconds"]):
        seconds = call["count"] * call["predicted_seconds"]
        if seconds < LEAST_SHARE * total:
            rest += seconds
            rest_floor += call["count"] * call["floor_seconds"]
            rest_calls += call["count"]
            continue
        main = max(call["launches"], key=lambda launch: launch["predicted"]["seconds"])
        splits = f"/{main['splits']}" if main.get("splits", 1) > 1 else ""
        rows.append([
            f"{call['operation']} {call['shape']}",
            str(call["count"]),
            f"{main['kernel']}{splits}",
            number(main["predicted"]["waves"]) if "tile" in main else "",
            str(main["blocks_per_multiprocessor"]),
            number(1e6 * call["floor_seconds"]),
            number(1e6 * call["predicted_seconds"]),
            f"{call['floor_seconds'] / call['predicted_seconds']:.0%}",
            main["bound"],
        ])
    if rest_calls:
        rows.append(["all others", str(rest_calls), "", "", "", number(1e6 * rest_floor), number(1e6 * rest),
                     f"{rest_floor / rest:.0%}", ""])
    print(f"#### `{step['name']}`\n")
    table(["call", "n", "kernel", "waves", "blocks", "floor, µs", "predicted, µs", "share", "waits for"], rows)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    models = []
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as file:
            models.append(json.load(file))
    card = models[0]["card"]
    print(f"Predicted, not measured, for an {card['name']}; registers and shared memory from {models[0]['resources']}.\n")
    steps(models)
    for model in models:
        for step in model["steps"]:
            if step["name"].startswith("train."):
                calls(step)


main()

#!/usr/bin/env python3
"""Writes the predictions of `residua bench --model --out FILE` as Markdown tables between the marks of benches/README.md.

    benches/model_table.py README FILE...

Files that were made with `--launches serial` become a column beside the others.
"""

import json
import sys

BEGIN, END = "<!-- predictions: begin -->\n", "<!-- predictions: end -->\n"

# Operations with a shape each get a line only if they take at least this share of the step.
LEAST_SHARE = 0.01


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(head, rows):
    lines = ["| " + " | ".join(row) + " |" for row in [head, *rows]]
    lines.insert(1, "|" + "---|" * len(head))
    return "\n".join(lines) + "\n\n"


def steps(models, serial):
    rows = []
    for model in models:
        for step in model["steps"]:
            rows.append([
                f"`{step['name']}`",
                f"{step['predicted_images_per_second']:,.0f}",
                f"{serial[step['name']]:,.0f}" if step["name"] in serial else "",
                number(1e3 * step["predicted_seconds"]),
                f"{step['floor_images_per_second']:,.0f}",
                f"{step['floor_seconds'] / step['predicted_seconds']:.0%}",
                str(step["launches"]),
            ])
    return table(["step", "predicted images/s", "with serial launches", "ms", "at the floors", "share", "launches"], rows)


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
    head = f"#### `{step['name']}`\n\n"
    return head + table(["call", "n", "kernel", "waves", "blocks", "floor, µs", "predicted, µs", "share", "waits for"], rows)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    readme, models = sys.argv[1], []
    for path in sys.argv[2:]:
        with open(path, encoding="utf-8") as file:
            models.append(json.load(file))
    is_serial = lambda model: model["card"]["launches"] == "serial"
    serial = {step["name"]: step["predicted_images_per_second"]
              for model in models if is_serial(model) for step in model["steps"]}
    models = [model for model in models if not is_serial(model)]
    if not models:
        sys.exit("all files were made with --launches serial; name those of overlapped launches as well")
    text = f"For an {models[0]['card']['name']}; registers and shared memory from {models[0]['resources']}.\n\n"
    text += steps(models, serial)
    for model in models:
        text += "".join(calls(step) for step in model["steps"] if step["name"].startswith("train."))
    with open(readme, encoding="utf-8") as file:
        old = file.read()
    if old.count(BEGIN) != 1 or old.count(END) != 1:
        sys.exit(f"{readme} does not have the marks {BEGIN.strip()} and {END.strip()} once each")
    before, after = old.split(BEGIN)[0], old.split(END)[1]
    with open(readme, "w", encoding="utf-8") as file:
        file.write(before + BEGIN + text + END + after)


main()

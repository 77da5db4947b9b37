#!/usr/bin/env python3
"""Predictions of `residua bench --model --out FILE`: a table of them, a record of them, and how far they lie from what was measured.

    benches/predictions.py table README FILE...          tables between the marks of README; files of --launches serial are a column
    benches/predictions.py record RECORD FILE...         one small file of all of them, to be committed before anything is measured
    benches/predictions.py compare FILE... [--to FILE]   side by side, by steps and by calls

`compare` takes records, files of `bench --model` (with `--card CARD.json` they are calibrated predictions; on a GPU they hold measured times as
well) and files of `bench --out`, whose `--calls` makes the calls comparable. `--to` is the one that the others are divided by: the
measured one, else the last.
"""

import argparse
import json
import sys

BEGIN, END = "<!-- predictions: begin -->\n", "<!-- predictions: end -->\n"

# Operations with a shape each get a line only if they take at least this share of the step.
LEAST_SHARE = 0.01


def read(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(head, rows):
    lines = ["| " + " | ".join(row) + " |" for row in [head, *rows]]
    lines.insert(1, "|" + "---|" * len(head))
    return "\n".join(lines) + "\n\n"


# ---- the table of README ----

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


def write_table(readme, paths):
    models = [read(path) for path in paths]
    is_serial = lambda model: model["card"]["launches"] == "serial"
    serial = {step["name"]: step["predicted_images_per_second"]
              for model in models if is_serial(model) for step in model["steps"]}
    models = [model for model in models if not is_serial(model)]
    if not models:
        sys.exit("all files were made with --launches serial; name those of overlapped launches as well")
    first = models[0]
    text = (f"For an {first['card']['name']}, {first['date'][:10]}, {first['program']}; registers and shared memory from "
            f"{first['resources']}.\n\n")
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


# ---- the record ----

def record(path, paths):
    models = [read(name) for name in paths]
    first = models[0]
    for model in models[1:]:
        for key in ("program", "card", "resources"):
            if model[key] != first[key]:
                sys.exit(f"the files do not belong together: `{key}` is {model[key]} and {first[key]}")
    kept = {"program": first["program"], "date": first["date"], "resources": first["resources"], "card": first["card"], "steps": []}
    for step in (step for model in models for step in model["steps"]):
        kept["steps"].append({
            "name": step["name"], "batch": step["batch"], "launches": step["launches"],
            "floor_seconds": step["floor_seconds"], "predicted_seconds": step["predicted_seconds"],
            "calls": [{"operation": call["operation"], "shape": call["shape"], "count": call["count"],
                       "kernel": max(call["launches"], key=lambda launch: launch["predicted"]["seconds"])["kernel"],
                       "floor_seconds": call["floor_seconds"], "predicted_seconds": call["predicted_seconds"]}
                      for call in step["calls"]],
        })
    lines = ",\n".join(
        "  " + json.dumps({**step, "calls": None})[:-5] + "[\n" + ",\n".join("   " + json.dumps(call) for call in step["calls"]) + "]}"
        for step in kept["steps"])
    head = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in kept.items() if key != "steps")
    with open(path, "w", encoding="utf-8") as file:
        file.write("{\n" + head + ',\n "steps": [\n' + lines + "\n ]\n}\n")
    json.loads(open(path, encoding="utf-8").read())


# ---- comparison ----

def columns(path):
    """Columns of a file: a title, whether it was measured, and seconds of steps and of (step, call)."""
    document = read(path)
    if "rows" in document:
        of_steps, of_calls = {}, {}
        for row in document["rows"]:
            if row.get("kind") == "step" and row.get("seconds"):
                of_steps[row["name"]] = row["seconds"]
                for call in row.get("calls", []):
                    of_calls[row["name"], call["name"]] = (call["count"], call["seconds"])
        return [(f"measured, {document['card']}", True, of_steps, of_calls)]
    if "steps" not in document:
        sys.exit(f"{path} is neither a record, nor a file of `bench --model`, nor one of `bench --out`")
    found = []
    card = document["card"]
    for key, title in (("predicted_seconds", "calibrated" if card.get("calibrated") else "predicted"), ("measured_seconds", "measured")):
        of_steps = {step["name"]: step[key] for step in document["steps"] if step.get(key) is not None}
        of_calls = {(step["name"], f"{call['operation']} {call['shape']}"): (call["count"], call[key])
                    for step in document["steps"] for call in step["calls"] if call.get(key) is not None}
        if of_steps or of_calls:
            found.append((f"{title}, {card['name']}", key == "measured_seconds", of_steps, of_calls))
    return found


def compare(paths, to):
    found = [column for path in paths for column in columns(path)]
    reference = columns(to)[-1] if to else next((column for column in reversed(found) if column[1]), found[-1])
    others = [column for column in found if column != reference]
    head = ["", *(f"{title}, µs" for title, *_ in others), f"{reference[0]}, µs", *("of it" for _ in others)]

    def row(name, values, base, scale=1e6):
        cells = [number(scale * value) if value is not None else "" for value in [*values, base]]
        return [name, *cells, *(f"{value / base:.2f}" if value is not None and base else "" for value in values)]

    names = [name for name in reference[2] if any(name in other[2] for other in others)]
    if not names:
        sys.exit("the files have no step in common")
    print(table(head, [row(f"`{name}`", [other[2].get(name) for other in others], reference[2][name]) for name in names]))
    for step in dict.fromkeys(step for step, _ in reference[3]):
        of_step = {call: value for (name, call), value in reference[3].items() if name == step}
        total = sum(count * seconds for count, seconds in of_step.values())
        rows = []
        for call, (count, seconds) in sorted(of_step.items(), key=lambda item: -item[1][0] * item[1][1]):
            values = [other[3].get((step, call), (0, None))[1] for other in others]
            if count * seconds >= LEAST_SHARE * total and any(value is not None for value in values):
                rows.append(row(f"{count} x {call}", values, seconds))
        if rows:
            print(f"#### `{step}`\n")
            print(table(head, rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, first in (("table", "readme"), ("record", "record")):
        sub = verbs.add_parser(verb)
        sub.add_argument(first)
        sub.add_argument("files", nargs="+")
    sub = verbs.add_parser("compare")
    sub.add_argument("files", nargs="+")
    sub.add_argument("--to")
    arguments = parser.parse_args()
    if arguments.verb == "table":
        write_table(arguments.readme, arguments.files)
    elif arguments.verb == "record":
        record(arguments.record, arguments.files)
    else:
        compare(arguments.files, arguments.to)


main()

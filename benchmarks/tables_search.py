"""The sections of RESULTS.md on what a search costs and how well it predicts: rows of search.jsonl and surrogate.jsonl."""

from __future__ import annotations

import numpy as np

STEPS = """
## What a search costs
`python benchmarks/search.py --bench DIR --network resnet20|vit [--quick]`; process seconds stand
for wall seconds where a machine is shared. *Steps*: environment steps of low-level training per process second, median
over blocks, beside a step of our own that makes a full forward pass of the calibration batch with the block's kernels
quantized anew. The published code's steps are those of the common benchmark's README (two cores, wall seconds).

| network | drop by | steps/s | full passes/s | times | published code | 20 times that | commit |
|---|---|---|---|---|---|---|---|
"""
SHARES = """
Where a run's time goes (parts of its process seconds; *short*: a twelfth of the training images, two cycles, no final
fine-tune, so that agents weigh more than in a whole run).

| network | run | process s | agents | proxy | sensitivity | fine-tuning | evaluation | file | other | under 15% | commit |
|---|---|---|---|---|---|---|---|---|---|---|---|
"""
PARTS = ("agents", "proxy", "sensitivity", "fine-tuning", "evaluation", "file", "other")
START = """
From the start to the first measured file that beats the published code's result (at least its ratio, at most its loss
against its own original; validation split), and to 10x at half a point; protocol A's data. In brackets process seconds:
wall seconds times the process's share of them.

| network | run | better than published, s | its ratio and loss | goal, s | published code, s | in a fifth | commit |
|---|---|---|---|---|---|---|---|
"""
BLOCKS = """
Growth with the number of blocks (synthetic residual MLPs of one width, measurements for nothing; process seconds).

| blocks | sensitivity | proxy | search | all | commit |
|---|---|---|---|---|---|
"""
SURROGATE = """
## Predicting the drop
`python benchmarks/surrogate.py --bench DIR --network resnet20|vit`: policies of different sizes and keeps, each fine-tuned
for a few images from the original and measured on the search-validation split. *Known*: policies that a prediction learned
from; all but one is leave-one-out, fewer are means over 5 draws. Region of interest: at most 3 points lost. Points. Accuracies
of 5,000 images differ by chance: *measured losses* is what the losses of the policies themselves say of their drops, a ceiling
for any prediction; *with losses* ranks predictions against these. The shape of the cold-start law was chosen on the first
twelve policies; how much corrections are believed was chosen on the ResNet-20's. Where no correction is in use, the law is.

| network | policies (region) | predictor | known | rank correlation | in region | with losses | error | in region | commit |
|---|---|---|---|---|---|---|---|---|---|
"""


def _line(*cells: object) -> str:
    return "| " + " | ".join("-" if cell is None else str(cell) for cell in cells) + " |\n"


def _yes(met: bool) -> str:
    return "yes" if met else "no"


def _run(row: dict) -> str:
    return "short" if row["quick"] else "whole"


def _steps(row: dict) -> str:
    cells = [row["network"], {"cold": "cold-start law"}.get(row["drop"], row["drop"]), f"{row['per_cpu_s']:.0f}"]
    cells += [f"{row['plain_per_cpu_s']:.1f}", f"{row['times_plain']:.0f}", row["published_per_s"], _yes(row["met"])]
    return _line(*cells, f"`{row['commit']}`")


def _shares(row: dict) -> str:
    shares = [f"{row['cpu'].get(part, 0):.1%}" for part in PARTS]
    return _line(row["network"], _run(row), f"{row['cpu_seconds']:.0f}", *shares, _yes(row["met"]), f"`{row['commit']}`")


def _start(row: dict) -> str:
    def seconds(value: float | None) -> str | None:
        return None if value is None else f"{value:.0f} ({value * row['cpu_per_wall']:.0f})"

    better = row.get("better")
    facts = None if better is None else f"{better['ratio']:.1f}x, {better['lost']:+.2f}"
    cells = [row["network"], _run(row), seconds(row["better_s"]), facts, seconds(row["goal_s"]), row["published_s"]]
    return _line(*cells, _yes(row["met"]), f"`{row['commit']}`")


def _blocks(row: dict) -> str:
    return _line(
        row["blocks"], *(f"{row['cpu'][p]:.1f}" for p in ("sensitivity", "proxy", "search", "all")), f"`{row['commit']}`"
    )


def _latest(rows: list[dict], section: str, *names: str) -> list[dict]:
    """The last row of each name."""
    return list({tuple(row.get(name) for name in names): row for row in rows if row.get("section") == section}.values())


def searches(rows: list[dict]) -> str:
    if not rows:
        return ""
    text = STEPS + "".join(map(_steps, _latest(rows, "steps", "network", "drop")))
    if shares := _latest(rows, "shares", "network", "quick"):
        text += SHARES + "".join(map(_shares, shares))
    if starts := _latest(rows, "start", "network", "quick"):
        text += START + "".join(map(_start, starts))
    if blocks := _latest(rows, "blocks", "blocks"):
        text += BLOCKS + "".join(map(_blocks, sorted(blocks, key=lambda row: row["blocks"]))) + growth(blocks)
    for row in _latest(rows, "memory", "network"):
        above, given = (row["peak"] - row["before"]) / 1e6, (row["network_bytes"] + row["data"]) / 1e6
        text += f"\nMemory of the run ({row['network']}, {_run(row)}): {above:,.0f} MB above the {row['before'] / 1e6:,.0f} MB "
        text += f"of Python, torch and this package; network and data {given:,.0f} MB: {row['times']:.1f} times.\n"
    return text


def growth(blocks: list[dict]) -> str:
    """The slope of log seconds over log blocks, for each part."""
    if len(blocks) < 2:
        return ""
    counts = np.log([row["blocks"] for row in blocks])
    slopes = {part: float(np.polyfit(counts, np.log([row["cpu"][part] for row in blocks]), 1)[0]) for part in blocks[0]["cpu"]}
    return "\nFitted exponents (1 is linear): " + ", ".join(f"{part} {slope:.2f}" for part, slope in slopes.items()) + ".\n"


def surrogates(rows: list[dict]) -> str:
    found = list({(r["network"], r["predictor"], r["from"]): r for r in rows if "predictor" in r}.values())
    if not found:
        return ""
    lines = []
    for r in found:
        ranks = ("rank_correlation", "rank_correlation_region", "rank_correlation_loss")
        numbers = [r.get(key) for key in (*ranks, "error", "error_region")]
        cells = [r["network"], f"{r['policies']} ({r['in_region']})", r["predictor"], r["from"]]
        cells += ["-" if number is None else f"{number:.2f}" for number in numbers]
        lines.append(_line(*cells, f"`{r['commit']}`"))
    return SURROGATE + "".join(lines)

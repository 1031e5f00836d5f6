"""Bytes against points lost, as a few lines of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hirelc.report.reading import Run
from hirelc.report.steps import added, best_so_far, byte_limit, on_front, steps
from hirelc.report.words import kilobytes

LABEL_WIDTH = 8  # of the column left of the plot
LISTED = 4
BEHIND, FRONT, BEST, FINAL = "○", "●", "★", "◆"
COLORS = {FRONT: "yellow", BEST: "bold green", FINAL: "bold magenta", "[\u2801-\u28ff]": "cyan"}  # dots are the goal's lines
LEAST_SPAN = 0.02  # of the bytes, so that points that nearly agree do not fill the width


@dataclass(frozen=True)
class Point:
    """One measured network. `mark` tells what it is: one of BEHIND, FRONT, BEST, FINAL."""

    size_bytes: int
    drop: float
    mark: str


@dataclass(frozen=True)
class Front:
    """What was measured, and the goal's limits on it.

    :param points: the later ones lie on top
    """

    points: tuple[Point, ...]
    byte_limit: int | None
    drop_limit: float | None
    original_bytes: int | None


def front_of(run: Run) -> Front:
    """The front of a run as far as it got."""
    searched = steps(run)
    found = [step for step in [*searched, *added(run)] if step.failure is None]
    best = best_so_far(run, searched)
    front = on_front([(step.size_bytes, -step.drop) for step in found])
    points = [
        Point(step.size_bytes, step.drop, BEST if step is best else FRONT if leads else BEHIND)
        for step, leads in zip(found, front, strict=True)
    ]
    final = run.event("final")
    if final and run.baseline is not None:
        points.append(Point(int(final["size_bytes"]), run.baseline - final["accuracy"], FINAL))
    order = sorted(points, key=lambda point: (BEHIND, FRONT, BEST, FINAL).index(point.mark))
    return Front(tuple(order), byte_limit(run.goal, run.original_bytes), run.goal.get("max_drop"), run.original_bytes)


def can_plot() -> bool:
    """Whether the extra `live` is there."""
    return find_spec("plotille") is not None


def plot(front: Front, width: int, height: int) -> RenderableType:
    """A plot of the points, with the goal's limits as lines. Needs the extra `live`, and a terminal that knows Unicode.

    Points lost are drawn as their area sine: a ruined candidate must not flatten the others.


    :param width: columns, labels included
    :param height: lines of the plot proper; the labels of the axis and the legend take two more
    """
    import plotille

    left, right = _range([p.size_bytes for p in front.points], front.byte_limit, LEAST_SPAN)
    drop_limit = None if front.drop_limit is None else math.asinh(front.drop_limit)
    low, high = _range([math.asinh(p.drop) for p in front.points], drop_limit, 0.0)
    canvas = plotille.Figure()
    canvas.width, canvas.height = width - LABEL_WIDTH - 1, height
    canvas.with_colors = False  # or it would look at an output that is not ours
    canvas.with_x_axis = canvas.with_y_axis = canvas.origin = False
    canvas.set_x_limits(left, right)
    canvas.set_y_limits(low, high)
    if front.byte_limit is not None:
        canvas.axvline((front.byte_limit - left) / (right - left))
    if drop_limit is not None:
        canvas.axhline((drop_limit - low) / (high - low))
    for point in front.points:
        canvas.scatter([point.size_bytes], [math.asinh(point.drop)], marker=point.mark)
    drawn = Table.grid(padding=(0, 1, 0, 0))
    drawn.add_column(width=LABEL_WIDTH, justify="right", style="dim", no_wrap=True)
    drawn.add_column(no_wrap=True)
    labels = [f"{math.sinh(high):.3g}", *[""] * (height - 2), f"{math.sinh(low):.3g}"]
    if height > 2:
        labels[1] = "points"
    if height > 4:
        labels[2] = "lost"
    drawn.add_row(Text("\n".join(labels)), _coloured(canvas.show()))
    return Group(drawn, _axis(left, right, width), _legend(front))


def _coloured(drawn: str) -> Text:
    text = Text(drawn)
    for what, style in COLORS.items():
        text.highlight_regex(what, style)
    return text


def _axis(left: float, right: float, width: int) -> RenderableType:
    ends = Table.grid(expand=False)
    ends.add_column(width=LABEL_WIDTH + 1)
    ends.add_column(width=(width - LABEL_WIDTH - 1) // 2, style="dim")
    ends.add_column(width=(width - LABEL_WIDTH) // 2, justify="right", style="dim")
    ends.add_row("", kilobytes(left), kilobytes(right))
    return ends


def _legend(front: Front) -> RenderableType:
    words = {BEHIND: "measured", FRONT: "front", BEST: "best", FINAL: "final file"}
    seen = {point.mark for point in front.points}
    parts = [f"{mark} {word}" for mark, word in words.items() if mark in seen]
    if front.byte_limit is not None or front.drop_limit is not None:
        parts.append("─ goal")
    return Text(" " * (LABEL_WIDTH + 1) + "  ".join(parts), style="dim", no_wrap=True, overflow="ellipsis")


def _range(values: Sequence[float], limit: float | None, least: float) -> tuple[float, float]:
    """Limits of an axis that shows all values and the goal's limit, with some air."""
    every = [float(value) for value in values] + ([] if limit is None else [float(limit)])
    low, high = min(every, default=0.0), max(every, default=1.0)
    span = max(high - low, least * abs(high), 1e-3)
    middle = (low + high) / 2
    return middle - 0.6 * span, middle + 0.6 * span


def listing(front: Front) -> RenderableType:
    """The points that nothing beats, a line each: where there is no room, or no library, for a plot."""
    lines = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(3):
        lines.add_column(justify="right", no_wrap=True)
    leading = [point for point in front.points if point.mark != BEHIND]
    for point in sorted(leading, key=lambda point: point.size_bytes)[:LISTED]:
        ratio = "" if not front.original_bytes else f"{front.original_bytes / point.size_bytes:.2f}x"
        name = {BEST: "best", FINAL: "final file"}.get(point.mark, "")
        lines.add_row(ratio, f"{point.size_bytes:,} bytes", f"{point.drop:+.2f} points lost", name)
    return lines

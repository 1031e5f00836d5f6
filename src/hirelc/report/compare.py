"""Several runs on one page: a table, and a common front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hirelc.errors import RunError
from hirelc.report.charts.chart import Chart, View, name, number, tips, view
from hirelc.report.charts.front import CONTROL, FINAL, ORIGINAL, front_rows
from hirelc.report.content import Slot
from hirelc.report.page import render
from hirelc.report.reading import Json, Run, read_run
from hirelc.report.steps import best_so_far, picked, steps
from hirelc.report.timing import seconds_spent, state
from hirelc.report.words import duration, goal_words
from hirelc.store import atomic_write, in_use

PAGE = "compare.html"
COLUMNS = (
    ("Run", False),
    ("State", False),
    ("Goal", False),
    ("Met", False),
    ("Bytes", True),
    ("Times smaller", True),
    ("Points lost", True),
    ("Validation", True),
    ("Test", True),
    ("MACs, times fewer", True),
    ("Images seen", True),
    ("Time", True),
    ("Strategy", False),
    ("Seed", True),
    ("hirelc", False),
)


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    :param numbers: (value to sort by, words), in the order of the table
    """

    name: str
    state: str
    goal: str
    met: str
    numbers: Sequence[tuple[float | None, str]]
    strategy: str
    seed: int
    version: str


def write_comparison(folders: Sequence[str | Path], out: str | Path) -> Path:
    """Writes the page, whole or not at all.

    :raises RunError: fewer than two runs, one named twice, a folder without a run, or the page cannot be written
    """
    if len(folders) < 2:
        raise RunError("compare needs at least two runs: name their folders, as in hirelc compare runs/a runs/b")
    places = [Path(folder).resolve() for folder in folders]
    if len(set(places)) < len(places):
        raise RunError("compare: a run is named twice: name each folder once")
    runs = [read_run(folder) for folder in folders]
    path = Path(out)
    atomic_write(path, comparison_page(runs, datetime.now(UTC)).encode())
    return path


def comparison_page(runs: Sequence[Run], now: datetime) -> str:
    """The page as text."""
    labels = unique_names(runs)
    front = common_front(runs, labels)
    values = {
        "entries": [entry(run, label, now) for run, label in zip(runs, labels, strict=True)],
        "columns": COLUMNS,
        "lead": "What each run reached, and every network that was measured on the way.",
        "warnings": _warnings(runs),
        "front": Slot(front, "No run has measured anything yet, so there is no front."),
    }
    return render("compare.html", [] if front is None else [front], values)


def unique_names(runs: Sequence[Run]) -> list[str]:
    """Folder names; where two are alike, with the folder above."""
    short = [run.name for run in runs]
    return [
        label if short.count(label) == 1 else f"{run.folder.resolve().parent.name}/{label}"
        for run, label in zip(runs, short, strict=True)
    ]


def _warnings(runs: Sequence[Run]) -> list[str]:
    found = [problem for run in runs for problem in run.problems]
    originals = {run.original_bytes for run in runs if run.original_bytes is not None}
    if len(originals) > 1:
        found.append("The runs compressed different networks: compare ratios and points lost, not bytes and accuracies.")
    return found


def entry(run: Run, label: str, now: datetime) -> Entry:
    result = run.result or {}
    rows = {row["name"]: row for row in result.get("rows", [])}
    measured = steps(run)
    best = picked(run, measured) or best_so_far(run, measured)
    compressed = rows.get("compressed", {})
    size = compressed.get("size_bytes") or (best.size_bytes if best else None)
    lost = result.get("loss_points", best.drop if best else None)
    validation = compressed.get("validation", best.accuracy if best else None)
    before, after = rows.get("original", {}).get("macs"), compressed.get("macs")
    seen = result.get("images_seen", sum(int(step.measurement.get("images_seen") or 0) for step in measured))
    spent = seconds_spent(run)
    return Entry(
        name=label,
        state=state(run, now, in_use(run.folder)).value,
        goal=goal_words(run.goal),
        met="not finished" if run.result is None else "yes" if result.get("met") else "no",
        numbers=[
            _number(size, ",.0f"),
            _number(run.original_bytes / size if run.original_bytes and size else None, ".2f"),
            _number(lost, ".2f"),
            _number(validation, ".2f"),
            _number(compressed.get("test"), ".2f"),
            _number(before / after if before and after else None, ".2f"),
            _number(seen, ",.0f"),
            (spent, duration(spent)),
        ],
        strategy=str(run.config.get("search", {}).get("strategy", "")),
        seed=int(run.config.get("seed") or 0),
        version=str(run.environment.get("hirelc", "")),
    )


def _number(value: float | None, pattern: str) -> tuple[float | None, str]:
    return value, "" if value is None else format(value, pattern)


def common_front(runs: Sequence[Run], labels: Sequence[str]) -> Chart | None:
    """Times smaller against points lost, and bytes against accuracy; a colour per run."""
    rows: list[Json] = []
    for run, label in zip(runs, labels, strict=True):
        for row in front_rows(run, steps(run)):
            rows.append({**row, "run": label, "what": _what(row)})
    if not any(row["kind"] not in (ORIGINAL, CONTROL) for row in rows):
        return None
    return Chart(
        name="front",
        title="Size against accuracy, all runs",
        summary=(
            "Every measurement of every run on its search-validation split: squares are final files, diamonds the uncompressed "
            "networks. Points lost count against each run's own original."
        ),
        rows=rows,
        views=[
            _front_view("Ratio and points lost", _RATIO, _LOST, labels),
            _front_view("Compressed only", {**_RATIO, "scale": _NEAR}, _LOST, labels, "datum.what !== 'uncompressed'"),
            _front_view("Bytes and metric", _BYTES, _ACCURACY, labels),
        ],
        columns={
            "Run": "run",
            "Point": "point",
            "Kind": "kind",
            "Bytes": "bytes",
            "Times smaller": "ratio",
            "Metric": "accuracy",
            "Points lost": "lost",
        },
    )


def _what(row: Json) -> str:
    if row["kind"] in (ORIGINAL, CONTROL):
        return "uncompressed"
    return "final file" if row["kind"] == FINAL else "measured on the way"


_FAR: Json = {"type": "log", "nice": False, "padding": 24}
_NEAR: Json = {"zero": False, "nice": True, "padding": 24}
_RATIO = number("ratio", "times smaller", scale=_FAR, axis={"format": "~s"})
_BYTES = number("bytes", "bytes of the whole file, logarithmic", scale=_FAR, axis={"format": "~s"})
_LOST = number("lost", "points lost", scale={"zero": False, "padding": 20, "reverse": True})
_ACCURACY = number("accuracy", "metric of the run", scale={"zero": False, "padding": 20})


def _front_view(label: str, x: Json, y: Json, labels: Sequence[str], only: str = "true") -> View:
    kinds = {"domain": ["measured on the way", "final file", "uncompressed"], "range": ["circle", "square", "diamond"]}
    values = (("bytes", ","), ("ratio", ".2f"), ("accuracy", ".2f"), ("lost", "+.2f"))
    columns = {"columns": {"expr": "width < 480 ? 1 : 3"}, "labelLimit": 400}
    return view(
        label,
        400,
        transform=[{"filter": only}],
        mark={"type": "point", "filled": True, "size": 110, "opacity": 0.9},
        encoding={
            "x": x,
            "y": y,
            "color": name("run", None, scale={"domain": list(labels)}, legend=columns),
            "shape": name("what", None, scale=kinds, legend={"orient": "bottom"}),
            "tooltip": tips("run", "point", "kind", *values, "policy"),
        },
    )

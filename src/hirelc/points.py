"""What a run measured, as points: bytes against accuracy, each with the candidate behind it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import log
from pathlib import Path
from typing import Any

from hirelc.checkpoints import FINAL, candidate_names
from hirelc.journal import ADDED, SEARCHED, read_journal
from hirelc.policy import FIDELITIES
from hirelc.store import RunDirectory

TRAINED = (FIDELITIES[-1], "final")
SAME_SIZE = 0.03  # sizes closer than this are one point of a front


@dataclass(frozen=True)
class Point:
    """One measured file.

    :param candidate: names the file and the training state behind it in the run's folder
    :param drop_points: on the search-validation split
    :param fidelity: how much training went before: "calibrated" (none), "short", "full", or "final"
    :param best: whether nothing smaller or as small loses less
    """

    candidate: int | str
    size_bytes: int
    ratio: float
    accuracy: float
    drop_points: float
    macs: int
    origin: str
    fidelity: str
    best: bool = False

    def file(self, folder: Path) -> Path:
        return folder / candidate_names(self.candidate)[0]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_points(folder: str | Path) -> list[Point]:
    """All points of a run whose files are there, smallest first; the best ones marked.

    :raises RunError: there is no run
    """
    folder = Path(folder)
    events = read_journal(folder)
    original = next((e["original_bytes"] for e in events if e["event"] == "network"), 0)
    baseline = next((e["accuracy"] for e in events if e["event"] == "baseline"), 0.0)
    points = []
    searched = 0
    for event in events:
        if event["event"] in (SEARCHED, ADDED):
            name = event["candidate"] if event["event"] == ADDED else searched
            searched += event["event"] == SEARCHED
            m = event["measurement"]
            if m["failure"] is None:
                size, fidelity = m["size_bytes"], m.get("fidelity", FIDELITIES[-1])
                accuracy, drop = m["accuracy"], m["drop_points"]
                points.append(Point(name, size, original / size, accuracy, drop, m["macs"], event["origin"], fidelity))
        elif event["event"] == "final" and "macs" in event:
            size, accuracy = event["size_bytes"], event["accuracy"]
            drop = baseline - accuracy
            points.append(Point(FINAL, size, original / size, accuracy, drop, event["macs"], "final", "final"))
    there = [point for point in points if point.file(folder).is_file()]
    return _marked(sorted(there, key=lambda point: (point.size_bytes, point.drop_points)))


def _marked(points: Sequence[Point]) -> list[Point]:
    least = float("inf")
    marked = []
    for point in points:
        marked.append(Point(**{**point.to_json(), "best": point.drop_points < least}))
        least = min(least, point.drop_points)
    return marked


def distinct(points: Iterable[Point]) -> list[Point]:
    """The least drop of each size, smallest first; sizes within a few percent are the same."""
    found: list[Point] = []
    for point in sorted(points, key=lambda point: point.size_bytes):
        if found and point.size_bytes <= (1 + SAME_SIZE) * found[-1].size_bytes:
            if point.drop_points < found[-1].drop_points:
                found[-1] = point
        else:
            found.append(point)
    return found


def trained_sizes(points: Iterable[Point]) -> list[Point]:
    """The different sizes among points that were trained in full."""
    return distinct(point for point in points if point.fidelity in TRAINED)


def nearest(points: Iterable[Point], size_bytes: float) -> Point | None:
    """The point to start from for a size: trained as much as can be, then closest in size, then losing least."""
    order = (*FIDELITIES, "final")

    def rank(point: Point) -> tuple[int, float, float]:
        return -max(order.index(point.fidelity), 2), abs(log(point.size_bytes / size_bytes)), point.drop_points

    return min(points, key=rank, default=None)


def next_added(directory: RunDirectory) -> str:
    """The name of the next candidate that is added to a front; the numbers belong to the search, which may go on."""
    return f"front-{sum(event['event'] == ADDED for event in directory.events):03d}"

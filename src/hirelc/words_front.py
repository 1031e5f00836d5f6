"""The front of a run in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hirelc.points import TRAINED, Point
from hirelc.words import count, table

HEADINGS = ("ratio", "file bytes", "points lost", "accuracy %", "MACs", "from", "file")


def front_words(points: Sequence[Point], folder: Path) -> str:
    """Every trained point, smallest file first; a star where nothing as small loses less."""
    trained = [point for point in points if point.fidelity in TRAINED]
    if not trained:
        return f"{folder} holds no trained candidate yet"
    rows = [
        (
            f"{point.ratio:.1f}x{' *' if point.best else '  '}",
            f"{point.size_bytes:,}",
            f"{point.drop_points:+.2f}",
            f"{point.accuracy:.2f}",
            count(point.macs),
            point.origin,
            str(point.file(folder)),
        )
        for point in trained
    ]
    return f"{table(HEADINGS, rows)}\n\n* nothing as small loses less; on the search-validation split"

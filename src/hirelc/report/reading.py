"""A run folder as one value: the journal and the JSON files beside it. What is missing or damaged is said, not guessed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hirelc.errors import RunError
from hirelc.store import JOURNAL, read_journal

Json = dict[str, Any]

CONFIG, ENVIRONMENT, RESULT, MODEL, CANDIDATES = (
    "config.json",
    "environment.json",
    "result.json",
    "model.hirelc",
    "candidates",
)


@dataclass(frozen=True)
class Run:
    """What a run has left behind so far.

    :param events: of the journal, oldest first
    :param result: None until the run has finished
    :param problems: sentences on what could not be read
    """

    folder: Path
    events: tuple[Json, ...]
    config: Json
    environment: Json
    result: Json | None
    problems: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def goal(self) -> Json:
        return self.event("start").get("goal") or {}

    @property
    def picked_from(self) -> str | None:
        """The folder of the run that this one was picked from, without a search of its own."""
        return self.event("start").get("picked_from")

    @property
    def original_bytes(self) -> int | None:
        """Bytes of the original's fp32 file; None before the network was traced."""
        return self.event("network").get("original_bytes")

    @property
    def baseline(self) -> float | None:
        """Accuracy of the original on the search-validation split, in percent."""
        return self.event("baseline").get("accuracy")

    @property
    def metric(self) -> str:
        """What is measured in points, higher being better; journals that do not say are of classifiers."""
        return str(self.event("start").get("metric") or "accuracy")

    @property
    def unit(self) -> str:
        """Behind the metric's number; may be empty."""
        start = self.event("start")
        return str(start.get("unit") or "") if start.get("metric") else "%"

    @property
    def axis(self) -> str:
        """The metric and its unit, as an axis or a column is headed."""
        return f"{self.metric}, {self.unit}" if self.unit else self.metric

    def event(self, kind: str) -> Json:
        """The last event of a kind (a resumed run may repeat one); empty when there is none."""
        return next((event for event in reversed(self.events) if event.get("event") == kind), {})

    def all(self, kind: str) -> list[Json]:
        return [event for event in self.events if event.get("event") == kind]

    def blocks(self) -> dict[str, list[str]]:
        """Kernels of each block, in the network's order."""
        return {block["name"]: list(block["kernels"]) for block in self.event("network").get("blocks", [])}


def read_run(folder: str | Path) -> Run:
    """Reads a run folder; runs that are under way or died are read as far as they got.

    :raises RunError: the folder holds no run, or its journal is damaged
    """
    path = Path(folder)
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise RunError(f"{path} {what}: name the folder of a run, as given to --out")
    if not (path / JOURNAL).is_file():
        inside = sorted(child.name for child in path.iterdir() if (child / JOURNAL).is_file())
        hint = f", such as {path / inside[0]}" if inside else ""
        raise RunError(f"{path} holds no run (no {JOURNAL}): name the folder of a run, as given to --out{hint}")
    events = read_journal(path)
    if not all(isinstance(event, Mapping) and "event" in event for event in events):
        raise RunError(f"{path / JOURNAL} is no journal of hirelc: a line of it names no event")
    return gathered(path, events)


def gathered(folder: Path, events: Sequence[Json]) -> Run:
    """A run of events that are known already, with the JSON files beside its journal."""
    problems: list[str] = []
    config, environment, result = (_object(folder / name, problems) for name in (CONFIG, ENVIRONMENT, RESULT))
    return Run(folder, tuple(events), config or {}, environment or {}, result, tuple(problems))


def _object(file: Path, problems: list[str]) -> Json | None:
    if not file.exists():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"{file.name} cannot be read ({type(error).__name__}); what it says is left out.")
        return None
    if not isinstance(found, dict):
        problems.append(f"{file.name} holds no JSON object; what it says is left out.")
        return None
    return found


def moment(event: Json) -> datetime:
    """When an event was written."""
    return datetime.fromisoformat(event["time"])

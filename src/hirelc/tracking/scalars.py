"""The numbers of a run, as trackers take them: a name, a value, a step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

MEMBERS = ("reward", "random_reward", "entropy")


@dataclass(frozen=True)
class Scalar:
    """:param step: measurements or cycles so far, from 1; of fine-tuning curves, images seen"""

    name: str
    value: float
    step: int


class Scalars:
    """Turns events of the journal, in their order, into scalars. Everything else about a run is in its journal."""

    def __init__(self) -> None:
        self._measured = 0
        self._original_bytes: int | None = None

    def of(self, event: Mapping[str, Any]) -> list[Scalar]:
        """Those of one event. What is not a finite number is left out."""
        kind = event["event"]
        if kind == "network":
            self._original_bytes = event.get("original_bytes")
        found: Iterable[tuple[str, Any, int]] = ()
        if kind == "baseline":
            found = [("accuracy/original", event.get("accuracy"), 0)]
        elif kind == "measurement":
            self._measured += 1
            found = self._measurement(event)
        elif kind in ("final", "control"):
            found = self._ending(event)
        elif kind == "test":
            names = ("original", "control", "compressed")
            found = [(f"test/{name}", score, 0) for name, score in zip(names, event.get("scores") or (), strict=False)]
        return [Scalar(name, float(value), step) for name, value, step in found if _finite(value)]

    def _measurement(self, event: Mapping[str, Any]) -> Iterator[tuple[str, Any, int]]:
        measurement, number = event["measurement"], self._measured
        yield from _decisions(event.get("decisions") or {}, int(event.get("cycle", 0)) + 1)
        if measurement.get("failure"):
            return  # its numbers are those of a broken network
        yield "measured/accuracy", measurement.get("accuracy"), number
        yield "measured/drop_points", measurement.get("drop_points"), number
        yield "measured/bytes", measurement.get("size_bytes"), number
        if self._original_bytes:
            yield "measured/ratio", self._original_bytes / measurement["size_bytes"], number
        learned = event.get("learned") or {}
        yield "predicted/drop_points", learned.get("predicted_drop"), number
        yield "predicted/absolute_error", learned.get("absolute_error"), number
        for name, value in (learned.get("surrogate") or {}).items():
            yield f"surrogate/{name}", value, number
        yield from _curve(f"candidate {number}", event)

    def _ending(self, event: Mapping[str, Any]) -> Iterator[tuple[str, Any, int]]:
        kind = event["event"]
        yield f"accuracy/{'compressed' if kind == 'final' else 'control'}", event.get("accuracy"), 0
        if kind == "final":
            yield "final/bytes", event.get("size_bytes"), 0
            if self._original_bytes and event.get("size_bytes"):
                yield "final/ratio", self._original_bytes / event["size_bytes"], 0
        yield from _curve(kind, event)


def _decisions(decisions: Mapping[str, Any], cycle: int) -> Iterator[tuple[str, Any, int]]:
    """What the agents of a cycle earned, and how sure they are: the mean of an ensemble, and of all blocks' ensembles."""
    blocks = [agent for block in decisions.get("low_level") or () for agent in block.get("agents") or ()]
    for level, agents in (("network", (decisions.get("high_level") or {}).get("agents") or ()), ("blocks", blocks)):
        for name in MEMBERS:
            yield f"agents/{level} {name}", _mean([agent.get(name) for agent in agents]), cycle


def _curve(name: str, event: Mapping[str, Any]) -> Iterator[tuple[str, Any, int]]:
    for images, score in (event.get("trained") or {}).get("scores") or ():
        yield f"fine-tune/{name}", score, int(images)


def _mean(values: Sequence[Any]) -> float | None:
    numbers = [float(value) for value in values if _finite(value)]
    return sum(numbers) / len(numbers) if numbers else None


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def seconds_of(event: Mapping[str, Any]) -> float:
    """When an event was written, in seconds since 1970."""
    return datetime.fromisoformat(event["time"]).timestamp()

"""What a run ends with, as values and as words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hirelc.policy import Goal, Measurement, Policy


@dataclass(frozen=True)
class Row:
    """One network in the final table.

    :param size_bytes: the whole file: fp32 safetensors for original and control, .hirelc for the compressed
    :param validation: accuracy on the search-validation split, in percent
    :param test: accuracy on the test split, read once; None without one
    :param parameters: numbers stored
    :param seconds: wall time of making it
    :param latency_ms: of a call, where the goal limits it; measured in turns with the other networks
    :param predicted_ms: what the latency table says of it
    """

    name: str
    size_bytes: int
    ratio: float
    validation: float
    test: float | None
    macs: int
    parameters: int
    seconds: float
    latency_ms: float | None = None
    predicted_ms: float | None = None


@dataclass(frozen=True)
class Result:
    """The end of a run.

    :param shortfall: why the goal is not met; None when it is
    :ivar loss_points: accuracy lost against the better of original and control, on the test split (else validation)
    """

    folder: Path
    path: Path
    goal: Goal
    policy: Policy
    original: Row
    control: Row | None
    compressed: Row
    measurements: tuple[Measurement, ...]
    images_seen: int
    shortfall: str | None

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(row for row in (self.original, self.control, self.compressed) if row is not None)

    @property
    def loss_points(self) -> float:
        rivals = [self.original] + ([self.control] if self.control is not None else [])
        if self.compressed.test is not None:
            return max(row.test for row in rivals if row.test is not None) - self.compressed.test
        return max(row.validation for row in rivals) - self.compressed.validation

    @classmethod
    def from_json(cls, folder: Path, path: Path, data: Mapping[str, Any], measurements: Iterable[Measurement]) -> Result:
        """A result as result.json holds it.

        :raises KeyError: it is none; nor is what raises TypeError or ValueError
        """
        rows = {row["name"]: Row(**row) for row in data["rows"]}
        return cls(
            folder=folder,
            path=path,
            goal=Goal(**data["goal"]),
            policy=Policy.from_json(data["policy"]),
            original=rows["original"],
            control=rows.get("control"),
            compressed=rows["compressed"],
            measurements=tuple(measurements),
            images_seen=data["images_seen"],
            shortfall=data["shortfall"],
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "goal": asdict(self.goal),
            "met": self.shortfall is None,
            "shortfall": self.shortfall,
            "loss_points": self.loss_points,
            "images_seen": self.images_seen,
            "rows": [asdict(row) for row in self.rows],
            "policy": self.policy.to_json(),
            "failed_candidates": [m.failure for m in self.measurements if m.failure is not None],
        }

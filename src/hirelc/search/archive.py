"""Every rigorous measurement, the front they form, and the one that serves a goal best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from hirelc.errors import RunError
from hirelc.policy import Goal, Measurement, Policy

Payload = TypeVar("Payload")


@dataclass(frozen=True)
class Entry(Generic[Payload]):
    """A policy, what it was measured to be worth, and whatever the caller keeps with it."""

    policy: Policy
    measurement: Measurement
    payload: Payload

    @property
    def costs(self) -> tuple[float, float, float]:
        """What the front minimises: bytes, drop, MACs."""
        return self.measurement.size_bytes, self.measurement.drop_points, self.measurement.macs


@dataclass(frozen=True)
class Pick(Generic[Payload]):
    """The entry that serves a goal best.

    :param shortfall: why the goal is not met, in words for the user; None when it is
    """

    entry: Entry[Payload]
    shortfall: str | None


def dominates(a: Entry[Payload], b: Entry[Payload]) -> bool:
    """Whether a is nowhere worse than b and somewhere better."""
    return a.costs != b.costs and all(x <= y for x, y in zip(a.costs, b.costs, strict=True))


class Archive(Generic[Payload]):
    """Measurements in the order they came. Failed ones are refused: a rejected candidate has no worth."""

    def __init__(self) -> None:
        self._entries: list[Entry[Payload]] = []

    @property
    def entries(self) -> tuple[Entry[Payload], ...]:
        return tuple(self._entries)

    def add(self, policy: Policy, measurement: Measurement, payload: Payload) -> Entry[Payload]:
        """
        :raises RunError: when the measurement failed
        """
        if measurement.failure is not None:
            raise RunError(f"policy {policy.digest} failed ({measurement.failure}) and cannot be archived")
        entry = Entry(policy, measurement, payload)
        self._entries.append(entry)
        return entry

    def front(self) -> tuple[Entry[Payload], ...]:
        """Entries that no other dominates, smallest first."""
        kept = [entry for entry in self._entries if not any(dominates(other, entry) for other in self._entries)]
        return tuple(sorted(kept, key=lambda entry: entry.costs))

    def pick(self, goal: Goal, original_bytes: int) -> Pick[Payload]:
        """The entry to deliver.

        With a byte limit: the least drop within it. With a drop limit only: the smallest within it. Where nothing
        is within a limit: the closest to it, with the reason. Ties go to the smaller, then to the earlier entry.

        :raises RunError: when the archive is empty
        """
        if not self._entries:
            raise RunError("no policy was measured successfully; nothing can be picked")
        limit, max_drop = goal.byte_limit(original_bytes), goal.max_drop
        if limit is None:
            assert max_drop is not None  # Goal guarantees one limit
            within = [entry for entry in self._entries if entry.measurement.drop_points <= max_drop]
            if within:
                return Pick(min(within, key=lambda entry: entry.costs), None)
            return self._least_drop(self._entries, max_drop)
        within = [entry for entry in self._entries if entry.measurement.size_bytes <= limit]
        if within:
            return self._least_drop(within, max_drop)
        smallest = min(self._entries, key=lambda entry: entry.costs)
        size = smallest.measurement.size_bytes
        return Pick(smallest, f"the smallest file found has {size} bytes ({original_bytes / size:.2f}x), the goal is {limit}")

    @staticmethod
    def _least_drop(entries: list[Entry[Payload]], max_drop: float | None) -> Pick[Payload]:
        best = min(entries, key=lambda entry: (entry.measurement.drop_points, *entry.costs))
        drop = best.measurement.drop_points
        short = max_drop is not None and drop > max_drop
        return Pick(best, f"the least drop found is {drop:.2f} points, the goal is {max_drop:.2f}" if short else None)

"""Every rigorous measurement, the front they form, and the one that serves a goal best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from hirelc.errors import RunError
from hirelc.policy import Goal, Limits, Measurement, Policy
from hirelc.search.likely import Scale

Payload = TypeVar("Payload")
LATER = 0.25  # of the wanted length, by which a file may be too long when the long fine-tune begins
FEE = 10.0  # points for a file of twice the length: about what training a part of it away costs at half a bit per weight
AS_CLOSE = 0.01  # of a limit: entries that exceed the limits by so little more are as close


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

    def pick(self, goal: Goal, original_bytes: int, later: float = 0.0) -> Pick[Payload]:
        """The entry to deliver, or to train on.

        Where bytes are limited, or neither bytes nor drop: the least likely drop within all limits. With a drop limit but none
        on bytes: the smallest within all. Where nothing is within the limits: the closest to them, with the reason.
        Ties go to the smaller, then to the earlier entry.

        :param later: by which part of the byte limit a file may be too long, for a long fine-tune makes it shorter; that
            costs `FEE`
        :raises RunError: when the archive is empty
        """
        if not self._entries:
            raise RunError("no policy was measured successfully; nothing can be picked")
        limits, max_drop = goal.limits(original_bytes), goal.max_drop
        if later and limits.size_bytes is not None:
            close = [(_too_long(limits, entry), entry) for entry in self._entries]
            drop = self.scale.likely
            rated = [(drop(e.measurement) + FEE * over, e.costs, i) for i, (over, e) in enumerate(close) if over <= later]
            if rated:
                return self._least_drop([self._entries[min(rated)[2]]], max_drop)
        within = [entry for entry in self._entries if not _excess(limits, entry)]
        if not within:
            least = min(sum(_excess(limits, entry).values()) for entry in self._entries)
            closest = [e for e in self._entries if sum(_excess(limits, e).values()) <= least + AS_CLOSE]
            best = self._least_drop(closest, None).entry
            return Pick(best, "the closest found " + _shortfall(limits, best))
        if limits.size_bytes is None and max_drop is not None:
            accurate = [entry for entry in within if entry.measurement.drop_points <= max_drop]
            if accurate:
                return Pick(min(accurate, key=lambda entry: entry.costs), None)
        return self._least_drop(within, max_drop)

    @property
    def scale(self) -> Scale:
        return Scale.of(entry.measurement for entry in self._entries)

    def _least_drop(self, entries: list[Entry[Payload]], max_drop: float | None) -> Pick[Payload]:
        scale = self.scale
        best = min(entries, key=lambda entry: (scale.likely(entry.measurement), *entry.costs))
        drop = best.measurement.drop_points
        short = max_drop is not None and drop > max_drop
        return Pick(best, f"the least drop found is {drop:.2f} points, the goal is {max_drop:.2f}" if short else None)


def _excess(limits: Limits, entry: Entry[Any]) -> dict[str, float]:
    m = entry.measurement
    return limits.excess(m.size_bytes, m.macs, m.latency_ms)


def _too_long(limits: Limits, entry: Entry[Any]) -> float:
    """By which part the file is too long; infinite where another limit does not hold, for training changes no shape."""
    excess = _excess(limits, entry)
    length = excess.pop("size_bytes", 0.0)
    return float("inf") if excess else length


def _shortfall(limits: Limits, entry: Entry[Any]) -> str:
    m = entry.measurement
    words = {
        "size_bytes": f"has {m.size_bytes:,} bytes where {limits.size_bytes or 0:,.0f} are allowed",
        "macs": f"takes {m.macs:,} MACs where {limits.macs or 0:,.0f} are allowed",
        "latency_ms": f"takes {m.latency_ms or 0:.3g} ms where {limits.latency_ms or 0:.3g} are allowed",
    }
    return " and ".join(words[name] for name in _excess(limits, entry))

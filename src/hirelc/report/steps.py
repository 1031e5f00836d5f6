"""The measurements of a run in order, and which of them form the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hirelc.journal import ADDED, SEARCHED
from hirelc.policy import Choice, Policy
from hirelc.precision import nominal_bits
from hirelc.report.reading import Json, Run
from hirelc.search.archive import FEE, LATER

FULL = "full"
LISTED_BLOCKS = 18  # in a tooltip


@dataclass(frozen=True)
class Step:
    """One rigorous measurement, on the search-validation split.

    :param number: counts measurements from 0, as the files in candidates/ do
    :param cycle: from 1, as people count
    :param choices: of the policy, by kernel
    """

    number: int
    cycle: int
    origin: str
    choices: Mapping[str, Json]
    measurement: Json
    decisions: Json
    learned: Json
    trained: Json

    @property
    def where(self) -> str:
        """Which part of a run measured it."""
        return stage_words(self.origin, self.cycle)

    @property
    def failure(self) -> str | None:
        return self.measurement.get("failure")

    @property
    def size_bytes(self) -> int:
        return int(self.measurement["size_bytes"])

    @property
    def accuracy(self) -> float:
        return float(self.measurement["accuracy"])

    @property
    def drop(self) -> float:
        return float(self.measurement["drop_points"])

    @property
    def fidelity(self) -> str:
        """How much training went before: "calibrated", "short" or "full"."""
        return str(self.measurement.get("fidelity", FULL))

    @property
    def macs(self) -> int | None:
        return self.measurement.get("macs")

    @property
    def predicted(self) -> float | None:
        return self.learned.get("predicted_drop", self.decisions.get("predicted_drop"))

    @property
    def digest(self) -> str:
        return Policy.from_json({"version": 1, "choices": self.choices}).digest


_BESIDE_CYCLES = {
    ADDED: "afterwards",
    "picked": "picked from another run",
    "pick": "after the cycles",
    "swap": "after the cycles",
}


def stage_words(origin: str, cycle: int) -> str:
    """The cycle of a measurement, or what it was made for beside them.

    :param cycle: from 1
    """
    return _BESIDE_CYCLES.get(origin, f"cycle {cycle}")


def steps(run: Run) -> list[Step]:
    """All measurements of the search, failed ones included."""
    return _steps(run.all(SEARCHED))


def added(run: Run) -> list[Step]:
    """What was measured for the front afterwards; it has no part in the search."""
    return _steps(run.all(ADDED))


def _steps(events: Sequence[Json]) -> list[Step]:
    found = []
    for number, event in enumerate(events):
        measurement = event["measurement"]
        found.append(
            Step(
                number,
                int(event.get("cycle", 0)) + 1,
                str(event.get("origin", "vote")),
                choices_of(event.get("policy")),
                measurement,
                event.get("decisions") or {},
                event.get("learned") or {},
                event.get("trained") or {},
            )
        )
    return found


def choices_of(policy: Any) -> Mapping[str, Json]:
    """Choices by kernel of a policy as the journal and result.json hold it."""
    return policy["choices"] if isinstance(policy, Mapping) else {}


def picked(run: Run, measured: Sequence[Step]) -> Step | None:
    """The measurement whose policy got the long fine-tune; None before the search is over."""
    event = run.event("pick")
    if "candidate" in event:
        return next((step for step in measured if step.number == event["candidate"]), None)
    return next((step for step in measured if step.failure is None and step.digest == event.get("policy")), None)


def best_so_far(run: Run, measured: Sequence[Step]) -> Step | None:
    """The one that would be picked now: fewest limits broken, then least drop, then fewest bytes.

    A file that the long fine-tune will make shorter keeps its limit, for a fee. Trials with little training count only
    while there is nothing else.
    """
    goal, original = run.goal, run.original_bytes
    limit = byte_limit(goal, original)

    def rank(step: Step) -> tuple[int, float, int]:
        over = max(0.0, step.size_bytes / limit - 1) if limit else 0.0
        shrinks = over <= LATER
        broken = set(exceeded(goal, original, step.measurement)) - ({"bytes"} if shrinks else set())
        return len(broken), step.drop + (FEE * over if shrinks else 0.0), step.size_bytes

    standing = [step for step in measured if step.failure is None]
    standing = [step for step in standing if step.fidelity == FULL] or standing
    if goal.get("max_drop") is not None and limit is None:
        # only the accuracy is limited: the smallest file that keeps it
        kept = [s for s in standing if s.drop <= goal["max_drop"] and not exceeded(goal, original, s.measurement)]
        return min(kept, key=lambda step: step.size_bytes, default=min(standing, key=rank, default=None))
    return min(standing, key=rank, default=None)


def exceeded(goal: Json, original_bytes: int | None, found: Json) -> list[str]:
    """Which limits a network does not keep: bytes, MACs, latency. What is not known of it keeps its limit.

    :param found: size_bytes, macs, latency_ms, as a measurement has them
    """
    limits = {
        "bytes": (byte_limit(goal, original_bytes), found.get("size_bytes")),
        "MACs": (goal.get("max_macs"), found.get("macs")),
        "latency": (goal.get("max_latency_ms"), found.get("latency_ms")),
    }
    return [name for name, (limit, value) in limits.items() if limit is not None and value is not None and value > limit]


def byte_limit(goal: Json, original_bytes: int | None) -> int | None:
    """The tightest limit on the file's length, in bytes; None when the goal sets none."""
    limits = [goal["max_bytes"]] if goal.get("max_bytes") else []
    if goal.get("ratio") and original_bytes:
        limits.append(int(original_bytes / goal["ratio"]))
    return min(limits, default=None)


def on_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which of (bytes, accuracy) no other point beats in both."""
    return [not any(b <= size and a >= score and (b, a) != (size, score) for b, a in points) for size, score in points]


def policy_words(choices: Mapping[str, Json]) -> str:
    """Bits, channels, types and granularities in a line."""
    if not choices:
        return "not recorded"
    every = list(choices.values())
    bits = sum(nominal_bits(Choice(**c)) for c in every) / len(every)
    keep = sum(c["keep_ratio"] for c in every) / len(every)
    kinds = f"{_shares(every, 'number_type')}; {_shares(every, 'granularity')}"
    return f"{bits:.1f} bits, {keep:.0%} of the channels on average; {kinds}"


def policy_lines(choices: Mapping[str, Json], blocks: Mapping[str, Sequence[str]]) -> str:
    """The bits of each block's kernels, a line a block."""
    lines = [
        f"{name}: {' '.join(_short(choices[kernel]) for kernel in kernels if kernel in choices)}"
        for name, kernels in blocks.items()
    ]
    more = len(lines) - LISTED_BLOCKS
    return "\n".join(lines[:LISTED_BLOCKS] + ([f"and {more} more blocks"] if more > 0 else []))


def _short(choice: Json) -> str:
    kept = "" if choice["keep_ratio"] >= 1 else f"·{choice['keep_ratio']:.0%}"
    return f"{choice['bits']}{'f' if choice['number_type'] == 'float' else ''}{kept}"


def _shares(choices: Sequence[Json], field: str) -> str:
    counts: dict[str, int] = {}
    for choice in choices:
        counts[str(choice[field])] = counts.get(str(choice[field]), 0) + 1
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1])).replace("_", " ")

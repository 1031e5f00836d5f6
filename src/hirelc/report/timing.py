"""Where the time of a run went, and how a run stands: both from the times in its journal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise

from hirelc.journal import ADDED
from hirelc.report.reading import Json, Run, moment

SILENCE_SECONDS = 900.0  # without an event, after which a run may be dead; longer where its own steps took longer

LEAST_SECONDS = 0.05  # what is shorter is no phase of its own

_PHASES = {
    "network": "looking at the network",
    "baseline": "measuring the original",
    "sensitivity": "Fisher sensitivity",
    "proxy": "logit proxy",
    "final": "final fine-tune",
    "control": "control",
    "test": "test split",
}
AGENTS, MEASURING, OTHER = "agents", "measuring candidates", "everything else"


class State(StrEnum):
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    DIED = "died"
    RUNNING = "running"
    SILENT = "silent"


@dataclass(frozen=True)
class Span:
    """:param cycle: from 1; None outside the search"""

    phase: str
    cycle: int | None
    seconds: float


def spans(run: Run) -> list[Span]:
    """The time between events, given to what the later one says was done. Breaks before a resume do not count."""
    found: list[Span] = []
    for before, event in pairwise(run.events):
        kind, gap = event["event"], max(0.0, (moment(event) - moment(before)).total_seconds())
        if _is_break(before, event):
            continue
        if kind == "measurement":
            cycle = int(event.get("cycle", 0)) + 1
            measuring = min(gap, float(event["measurement"].get("seconds") or 0.0))
            before_it = OTHER if run.picked_from is not None else AGENTS
            found += [Span(before_it, cycle, gap - measuring), Span(MEASURING, cycle, measuring)]
        else:
            found.append(Span(_PHASES.get(kind, OTHER), None, gap))
    return [span for span in _summed(found) if span.seconds >= LEAST_SECONDS]


def _is_break(before: Json, event: Json) -> bool:
    """A point that is added to the front of a run, whenever that is, belongs to no phase of it either."""
    kind, last = str(event["event"]), str(before["event"])
    return kind.startswith("resum") or kind in ("start", ADDED) or last in ("interrupted", "result")


def _summed(found: Iterable[Span]) -> list[Span]:
    totals: dict[tuple[str, int | None], float] = {}
    for span in found:
        key = (span.phase, span.cycle)
        totals[key] = totals.get(key, 0.0) + span.seconds
    order = ["looking at the network", "measuring the original", "Fisher sensitivity", "logit proxy", AGENTS, MEASURING]
    order += ["final fine-tune", "control", "test split", OTHER]
    return [
        Span(phase, cycle, seconds) for (phase, cycle), seconds in sorted(totals.items(), key=lambda t: order.index(t[0][0]))
    ]


def seconds_spent(run: Run) -> float:
    """Wall time of the run so far, without breaks."""
    return sum(span.seconds for span in spans(run))


def state(run: Run, now: datetime, alive: bool | None = None) -> State:
    """How the run stands. SILENT: it says it is under way, but has written nothing for a suspiciously long time.

    :param alive: whether its process is there; None where that is not known
    """
    if run.result is not None or run.event("result"):
        return State.FINISHED
    if alive:
        return State.RUNNING
    last = next((event["event"] for event in reversed(run.events) if event["event"] != ADDED), None)
    if last == "interrupted":
        return State.INTERRUPTED
    if alive is False:
        return State.DIED
    if not run.events:
        return State.RUNNING
    longest = max((span.seconds for span in spans(run)), default=0.0)
    quiet = (now - moment(run.events[-1])).total_seconds()
    return State.SILENT if quiet > max(SILENCE_SECONDS, 3 * longest) else State.RUNNING

"""How a run stands, in a few lines: for another terminal while it goes, or for whoever finds a folder later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hirelc.report.outlook import UnderWay, ends_cycle, seconds_left
from hirelc.report.reading import Json, Run, moment, read_run
from hirelc.report.steps import Step, best_so_far, exceeded, picked, stage_words, steps
from hirelc.report.timing import State, seconds_spent, state
from hirelc.report.words import about, duration, goal_words
from hirelc.store import in_use

LAST_EVENTS = 6
_NEXT = {
    # after this event, a run is doing that
    "start": "tracing the network",
    "network": "measuring the original",
    "baseline": "measuring the sensitivity",
    "sensitivity": "measuring the logit proxy",
    "pick": "in the final fine-tune",
    "final": "training the control or reading the test split",
    "control": "reading the test split",
    "test": "writing the result",
}


@dataclass(frozen=True)
class Status:
    """:param doing: what the run is at, or ended with
    :param cycles: (under way or reached, of how many)
    :param picked_from: the run whose candidate this one moved to its goal; None where it searches
    :param best: measurement that serves the goal best so far; None before the first
    :param spent_seconds: what is under way included, while the run is taken to be alive
    :param left_seconds: until the run has finished, about; None where it is not under way, or nothing is known yet
    :param quiet_seconds: since the last event
    """

    folder: Path
    state: State
    doing: str
    cycles: tuple[int, int | None]
    goal: str
    best: Json | None
    measured: int
    failed: int
    spent_seconds: float
    left_seconds: float | None
    quiet_seconds: float | None
    events: Sequence[str]
    picked_from: str | None = None

    def to_json(self) -> Json:
        return {
            "folder": str(self.folder),
            "state": self.state.value,
            "doing": self.doing,
            "cycle": self.cycles[0],
            "cycles": self.cycles[1],
            "picked_from": self.picked_from,
            "goal": self.goal,
            "best": self.best,
            "measured": self.measured,
            "failed": self.failed,
            "spent_seconds": round(self.spent_seconds, 3),
            "left_seconds": None if self.left_seconds is None else round(self.left_seconds),
            "quiet_seconds": None if self.quiet_seconds is None else round(self.quiet_seconds, 3),
            "events": list(self.events),
        }


def status(folder: str | Path, now: datetime) -> Status:
    """Reads a run folder; a journal that grows meanwhile does no harm.

    :raises RunError: the folder holds no run
    """
    run = read_run(folder)
    return status_of(run, now, in_use(run.folder))


def status_of(run: Run, now: datetime, alive: bool | None = None, at: UnderWay | None = None) -> Status:
    """The status of a run that was read.

    :param alive: whether its process is there; None where that is not known
    :param at: what is under way, where that is known
    """
    measured = steps(run)
    standing = state(run, now, alive)
    total = run.config.get("search", {}).get("cycles")
    quiet = max(0.0, (now - moment(run.events[-1])).total_seconds()) if run.events else None
    under_way = quiet if quiet is not None and standing is State.RUNNING else 0.0
    return Status(
        folder=run.folder,
        state=standing,
        doing=_doing(run, measured, total, standing),
        cycles=(_cycle(run, measured, total), total),
        goal=goal_words(run.goal),
        best=_best(run, measured),
        measured=len(measured),
        failed=sum(step.failure is not None for step in measured),
        spent_seconds=seconds_spent(run) + under_way,
        left_seconds=seconds_left(run, now, at) if standing is State.RUNNING else None,
        quiet_seconds=quiet,
        events=[_event_words(event) for event in run.events[-LAST_EVENTS:]],
        picked_from=run.picked_from,
    )


def _cycle(run: Run, measured: Sequence[Step], total: int | None) -> int:
    """Which cycle is under way: a cycle ends with the full measurement of a policy that it found."""
    if not measured:
        return 1 if run.event("proxy") else 0
    last = measured[-1]
    done = last.cycle if ends_cycle(last.origin, last.measurement) else last.cycle - 1
    under_way = done if run.event("pick") else done + 1
    return min(under_way, total) if total else under_way


def _doing(run: Run, measured: Sequence[Step], total: int | None, standing: State) -> str:
    if standing is State.FINISHED:
        result = run.result or run.event("result")
        return (
            "the goal is met"
            if result.get("met")
            else f"the goal is not met: {result.get('shortfall') or 'no reason recorded'}"
        )
    last = next(
        (e["event"] for e in reversed(run.events) if e["event"] in _NEXT or e["event"] in ("proxy", "measurement")), None
    )
    if last is None:
        return "nothing done yet"
    verb = "now" if standing in (State.RUNNING, State.SILENT) else "while"
    if last in _NEXT:
        return f"{verb} {_NEXT[last]}"
    if run.picked_from is not None:
        return f"{verb} moving a candidate to the goal"
    return f"{verb} in cycle {_cycle(run, measured, total)}" + (f" of {total}" if total else "")


def _best(run: Run, measured: Sequence[Step]) -> Json | None:
    final, original = run.event("final"), run.original_bytes
    if final:
        lost = None if run.baseline is None else run.baseline - final["accuracy"]
        found: Json = {"what": "the final file", "size_bytes": final["size_bytes"], "drop_points": lost}
        chosen = picked(run, measured)  # the fine-tune takes no channels away
        found |= {"macs": chosen.macs, "latency_ms": chosen.measurement.get("latency_ms")} if chosen is not None else {}
    else:
        step = best_so_far(run, measured)
        if step is None:
            return None
        found = {"what": f"candidate {step.number + 1}, {step.where}", "size_bytes": step.size_bytes}
        found["drop_points"] = step.drop
        found |= {"macs": step.macs, "latency_ms": step.measurement.get("latency_ms")}
    found["ratio"] = original / found["size_bytes"] if original else None
    found["within_goal"] = _within(run, found)
    return found


def _within(run: Run, found: Json) -> bool:
    most = run.goal.get("max_drop")
    small = not exceeded(run.goal, run.original_bytes, found)
    return small and (most is None or (found["drop_points"] is not None and found["drop_points"] <= most))


def _event_words(event: Json) -> str:
    return f"{moment(event):%H:%M:%S} {event['event']}{_detail(event)}"


def _detail(event: Json) -> str:
    kind, values = event["event"], event
    if kind == "measurement":
        m: Any = values["measurement"]
        origin = str(values.get("origin", "vote"))
        head = f", {stage_words(origin, int(values.get('cycle', 0)) + 1)} ({origin}): "
        if m.get("failure"):
            return f"{head}rejected: {m['failure']}"
        return f"{head}{m['size_bytes']:,} bytes, {m['drop_points']:+.2f} points lost"
    if kind in ("baseline", "control", "final") and values.get("accuracy") is not None:
        return f": {values['accuracy']:.2f} %"
    if kind == "result":
        return ": goal met" if values.get("met") else ": goal not met"
    return ""


def status_words(found: Status) -> str:
    """The status as lines for a terminal."""
    lines = [f"{found.folder}: {found.state.value}, {found.doing}", f"goal      {found.goal}"]
    if found.best is None:
        lines.append("best      nothing measured yet")
    else:
        lines.append(f"best      {_best_words(found.best)}")
    lines.append(f"search    {_search_words(found)}")
    if found.state in (State.DIED, State.INTERRUPTED):
        lines.append(f"go on     hirelc resume {found.folder}")
    lines.append(f"time      {duration(found.spent_seconds)}{_left_words(found)}{_quiet_words(found)}")
    return "\n".join([*lines, "", "last events (UTC)", *(f"  {line}" for line in found.events)])


def _search_words(found: Status) -> str:
    if found.picked_from is not None:
        return f"none: picked from {found.picked_from}"
    cycle, total = found.cycles
    failed = f", {found.failed} of them rejected" if found.failed else ""
    return f"cycle {cycle}{f' of {total}' if total else ''}, {found.measured} candidates measured{failed}"


def _best_words(best: Json) -> str:
    ratio = "" if best["ratio"] is None else f"{best['ratio']:.2f}x smaller, "
    lost = "" if best["drop_points"] is None else f", {best['drop_points']:+.2f} points lost on search-validation"
    goal = "within the goal" if best["within_goal"] else "short of the goal"
    return f"{ratio}{best['size_bytes']:,} bytes{lost} ({best['what']}): {goal}"


def _left_words(found: Status) -> str:
    return "" if found.left_seconds is None else f", about {about(found.left_seconds)} left"


def _quiet_words(found: Status) -> str:
    if found.quiet_seconds is None or found.state is State.FINISHED:
        return ""
    words = f"; the last event was {duration(found.quiet_seconds)} ago"
    if found.state is State.SILENT:
        words += ", longer than anything before: the run may have died"
    return words

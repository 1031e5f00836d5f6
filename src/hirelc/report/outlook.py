"""How long a run that is under way still takes: what is left to do, at the speed that it has had so far."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from hirelc.report.reading import Json, Run, moment
from hirelc.report.timing import AGENTS, seconds_spent, spans

# Per image, and measured over twelve runs: a long fine-tune against those of the search, which also begin and end
# with work on the file; the control against the fine-tune of the compressed network.
FINAL_SPEED, CONTROL_SPEED = 0.78, 0.9
TRIALS = 1.5  # a cycle that tries several policies, in full measurements, before one has been seen
SURE = 0.04  # part of a step that must be done before its own speed is trusted


@dataclass(frozen=True)
class UnderWay:
    """The piece of work at hand, as the process itself knows it.

    :param part: done of it, from 0 to 1
    """

    title: str
    seconds: float
    part: float | None


@dataclass(frozen=True)
class _Pace:
    """What was learned about speed, in seconds.

    :param measuring: a candidate's measurement with full training
    :param image: a training image in one
    :param cycle: agents and measurements of a cycle together
    :param evaluating: one pass over the search-validation split
    """

    measuring: float
    image: float
    cycle: float
    evaluating: float


def ends_cycle(origin: str, measurement: Json) -> bool:
    """Whether a measurement is a cycle's last: in full, of a policy that the cycle came to."""
    return origin not in ("reference", "warm start") and measurement.get("fidelity", "full") == "full"


def seconds_left(run: Run, now: datetime, at: UnderWay | None = None) -> float | None:
    """Wall time until the run has finished, None while nothing is known about its speed.

    :param at: what is under way; without it only the time since the last event is known
    """
    if not run.events or run.event("result"):
        return None
    given = run.config.get("train", {}).get("seconds")
    if given is not None:  # a run that was given a time plans its work by it
        return max(0.0, float(given) - seconds_spent(run) - _since(run.events[-1], now))
    pace = _pace(run, at)
    if pace is None:
        return None
    if not run.event("pick"):
        return _search_left(run, now, pace) + sum(_ending(run, pace))
    ahead = _ending(run, pace)
    if not ahead:
        return None
    if at is not None and at.part is not None and at.part >= SURE:
        return at.seconds * (1 - at.part) / at.part + sum(ahead[1:])
    return max(0.0, ahead[0] - _since(run.events[-1], now)) + sum(ahead[1:])


def _since(event: Json, now: datetime) -> float:
    return max(0.0, (now - moment(event)).total_seconds())


def _search_left(run: Run, now: datetime, pace: _Pace) -> float:
    cycles = int(run.config.get("search", {}).get("cycles", 0))
    done = [event for event in run.all("measurement") if ends_cycle(_origin(event), event["measurement"])]
    begun = max([*done, run.event("proxy"), run.event("resumed")], key=lambda event: event.get("sequence", -1))
    under_way = max(0.0, _cycle_cost(run, pace, first=not done) - (_since(begun, now) if begun else 0.0))
    return (under_way + max(0, cycles - len(done) - 1) * pace.cycle) if len(done) < cycles else 0.0


def _cycle_cost(run: Run, pace: _Pace, first: bool) -> float:
    """The first one measures the reference as well, and its agents start from nothing."""
    if not first:
        return pace.cycle
    agents = next((span.seconds for span in spans(run) if span.phase == AGENTS), 0.0)
    return pace.cycle + agents / 2 + pace.measuring


def _origin(event: Json) -> str:
    return str(event.get("origin", "vote"))


def _ending(run: Run, pace: _Pace) -> list[float]:
    """Seconds of each step after the search that is not in the journal yet."""
    steps: list[float] = []
    images, final = _images_after(run), run.event("final")
    if not final:
        steps.append(images * pace.image * FINAL_SPEED + pace.evaluating)
    wanted = _ends_long(run) and run.config.get("train", {}).get("control", True)
    if wanted and not run.event("control"):
        seen = (final.get("trained") or {}) if final else {}
        each = seen["seconds"] / seen["images"] if seen.get("images") else pace.image * FINAL_SPEED
        steps.append(images * each * CONTROL_SPEED + pace.evaluating)
    tests, validation = run.event("start").get("test"), run.event("start").get("validation")
    if tests and validation and not run.event("test"):
        steps.append((3 if wanted else 2) * pace.evaluating * tests / validation)
    return steps


def _trains(run: Run) -> bool:
    return not run.config.get("calibrate_only", False)


def _ends_long(run: Run) -> bool:
    """Whether a long fine-tune, and that of the control, follow the search."""
    return _trains(run) and bool(run.config.get("train", {}).get("final", True))


def _images_after(run: Run) -> int:
    """Training images that the final fine-tune gets: what search and sensitivity leave."""
    if not _ends_long(run):
        return 0
    train = run.config.get("train", {})
    whole = int(train.get("images", 0))
    if not run.event("pick"):
        return round(whole * (1 - float(train.get("search_share", 0.0))))
    used = sum(int(event["measurement"].get("images_seen") or 0) for event in run.all("measurement"))
    return max(0, whole - used - int(run.event("sensitivity").get("samples") or 0))


def _pace(run: Run, at: UnderWay | None) -> _Pace | None:
    events = [event for event in run.all("measurement") if not event["measurement"].get("failure")]
    full = [event["measurement"] for event in events if event["measurement"].get("fidelity", "full") == "full"]
    evaluating = _gap_before(run, "baseline")
    if run.picked_from is not None:
        return _picked_pace(run, at, evaluating)
    if not full:
        return _first_pace(run, at, evaluating)
    recent = full[-3:]  # what else the machine does changes in a long run
    seconds = sum(float(m.get("seconds") or 0.0) for m in recent)
    images = sum(int(m.get("images_seen") or 0) for m in recent)
    measuring = seconds / len(recent)
    return _Pace(measuring, seconds / images if images else 0.0, _per_cycle(run, measuring), evaluating)


def _per_cycle(run: Run, measuring: float) -> float:
    """Of the cycles that ended; of later ones rather than the first, whose agents start from nothing."""
    found = spans(run)
    ended = {
        int(event.get("cycle", 0)) + 1 for event in run.all("measurement") if ends_cycle(_origin(event), event["measurement"])
    }
    taken = [sum(span.seconds for span in found if span.cycle == cycle) for cycle in ended - {1}]
    if taken:
        return sum(taken) / len(taken)
    agents = next((span.seconds for span in found if span.phase == AGENTS), 0.0)
    if not ended:
        return agents / 2 + (TRIALS if int(run.config.get("search", {}).get("trials", 1)) > 1 else 1.0) * measuring
    # the whole first cycle, without its reference
    return max(measuring, sum(span.seconds for span in found if span.cycle == 1) - agents / 2 - measuring)


def _first_pace(run: Run, at: UnderWay | None, evaluating: float) -> _Pace | None:
    """From the first candidate, while it is being trained: the bar tells."""
    if at is None or at.part is None or at.part < SURE or not at.title.startswith("measuring candidate"):
        return None
    train, search = run.config.get("train", {}), run.config.get("search", {})
    trials = TRIALS if int(search.get("trials", 1)) > 1 else 1.0
    images = train.get("images", 0) * train.get("search_share", 0.0) / (1 + trials * int(search.get("cycles", 0)))
    whole = at.seconds / at.part
    return _Pace(whole, whole / images if images and _trains(run) else 0.0, trials * whole, evaluating)


def _picked_pace(run: Run, at: UnderWay | None, evaluating: float) -> _Pace | None:
    """Of a run without a search: its final fine-tune tells, and that tells about the control."""
    if run.event("final"):
        return _Pace(0.0, 0.0, 0.0, evaluating)
    if not run.event("pick") or at is None or at.part is None or at.part < SURE:
        return None
    images = _images_after(run)
    return _Pace(0.0, at.seconds / at.part / images / FINAL_SPEED if images else 0.0, 0.0, evaluating)


def _gap_before(run: Run, kind: str) -> float:
    """Seconds between an event and the one before it."""
    before: Json | None = None
    for event in run.events:
        if event["event"] == kind and before is not None:
            return max(0.0, (moment(event) - moment(before)).total_seconds())
        before = event
    return 0.0

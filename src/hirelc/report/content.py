"""Everything that stands on a run's page, as values that the template only has to lay out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hirelc.report.charts.chart import Chart
from hirelc.report.charts.front import front_chart
from hirelc.report.charts.network import network_map, sensitivity_chart
from hirelc.report.charts.search import budget_chart, reward_chart, surrogate_chart
from hirelc.report.charts.training import time_chart, training_chart
from hirelc.report.charts.votes import size_vote_chart, vote_chart
from hirelc.report.kernels import Kernels, kernels
from hirelc.report.reading import Json, Run
from hirelc.report.steps import Step, steps
from hirelc.report.timing import State, seconds_spent, state
from hirelc.report.verdict import Verdict, verdict
from hirelc.report.words import duration


@dataclass(frozen=True)
class Slot:
    """A place for a chart: the chart, or the sentence that says why there is none.

    :param note: a sentence beside the chart
    """

    chart: Chart | None
    missing: str
    note: str = ""


@dataclass(frozen=True)
class Failed:
    """A candidate that was rejected."""

    number: int
    cycle: int
    size_bytes: int
    reason: str


@dataclass(frozen=True)
class Content:
    """:param slots: by the name of the chart
    :param table: original, control and compressed, as in result.json; empty until the run has finished
    :param facts: heading -> value, by group
    """

    run: Run
    state: State
    verdict: Verdict
    slots: Mapping[str, Slot]
    kernels: Kernels
    table: Sequence[Json]
    untouched: Sequence[Json]
    notes: Sequence[str]
    failed: Sequence[Failed]
    facts: Mapping[str, Mapping[str, Any]]

    @property
    def charts(self) -> list[Chart]:
        return [slot.chart for slot in self.slots.values() if slot.chart is not None]


def content(run: Run, now: datetime, alive: bool | None = None) -> Content:
    """
    :param now: by which a silent run is told from one under way
    :param alive: whether its process is there; None where that is not known
    """
    measured = steps(run)
    found = kernels(run, measured)
    network = run.event("network")
    return Content(
        run=run,
        state=state(run, now, alive),
        verdict=verdict(run, measured),
        slots=_slots(run, measured, found),
        kernels=found,
        table=(run.result or {}).get("rows", []),
        untouched=network.get("untouched", []),
        notes=network.get("notes", []),
        failed=[Failed(s.number + 1, s.cycle, s.size_bytes, s.failure) for s in measured if s.failure is not None],
        facts=_facts(run, measured),
    )


def _slots(run: Run, measured: Sequence[Step], found: Kernels) -> dict[str, Slot]:
    votes, note = vote_chart(run, measured)
    why = _why_undecided(run, measured)
    trained = training_chart(run, measured)
    unfollowed = "" if trained is None or any(step.trained for step in measured) else _UNFOLLOWED
    return {
        "front": Slot(front_chart(run, measured), "Nothing has been measured yet, so there is no front."),
        "map": Slot(network_map(run, found), found.problem or "There are no kernels to show."),
        "sensitivity": Slot(sensitivity_chart(run, found), "The sensitivity has not been measured yet."),
        "budgets": Slot(budget_chart(run, measured), f"There are no budgets to show: {why}"),
        "size_votes": Slot(size_vote_chart(run, measured), f"There are no votes on sizes to show: {why}"),
        "votes": Slot(votes, f"There are no votes to show: {why}", note or ""),
        "rewards": Slot(reward_chart(measured), f"There are no rewards to show: {why}"),
        "surrogate": Slot(surrogate_chart(measured), "No measurement has a prediction to stand beside yet."),
        "training": Slot(
            trained, "No fine-tune was followed: the journal holds curves of the final one and the control.", unfollowed
        ),
        "time": Slot(time_chart(run), "The journal is too short to tell."),
    }


_UNFOLLOWED = "The journal of this run does not hold the curves of the candidates' short fine-tunes."


def _why_undecided(run: Run, measured: Sequence[Step]) -> str:
    if run.picked_from is not None:
        return f"nothing was searched, a candidate of {run.picked_from} was moved to this goal."
    strategy = run.config.get("search", {}).get("strategy", "hirelc")
    if strategy != "hirelc":
        return f"the strategy of this run was {strategy}, which has no agents."
    if not measured:
        return "the first cycle has not ended."
    return "no vote of the agents has been measured yet."


def _facts(run: Run, measured: Sequence[Step]) -> dict[str, dict[str, Any]]:
    start, baseline, result = run.event("start"), run.event("baseline"), run.result or {}
    test = run.event("test")
    seen = result.get("images_seen", sum(int(step.measurement.get("images_seen") or 0) for step in measured))
    splits = {
        "training samples": _thousands(start.get("train")),
        "search-validation samples": _thousands(baseline.get("samples")),
        "test split": f"read {test['readings']} times, once per reported number" if test else "not read",
        "Fisher samples": _thousands(run.event("sensitivity").get("samples")),
        "calibration samples of the proxy": _thousands(run.event("proxy").get("samples")),
        "training images seen": _thousands(seen),
    }
    if start.get("data"):
        splits = {"data": start["data"], **splits}
    run_facts = {
        "folder": run.name,
        "started": start.get("time"),
        "last event": run.events[-1]["time"] if run.events else None,
        "wall time": duration(seconds_spent(run)),
        "root seed": start.get("seed", run.config.get("seed")),
        "resumed": sum(str(event["event"]).startswith("resum") for event in run.events) or None,
    }
    groups: dict[str, Json] = {"Run": run_facts, "Data": splits, "Environment": run.environment}
    groups.update(_settings(run.config))
    known = {name: {key: value for key, value in facts.items() if value is not None} for name, facts in groups.items()}
    return {name: facts for name, facts in known.items() if facts}


def _settings(config: Json) -> dict[str, Json]:
    plain = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    nested = {f"Settings: {key}": dict(value) for key, value in config.items() if isinstance(value, Mapping)}
    return {"Settings": plain, **nested}


def _thousands(value: Any) -> str | None:
    return f"{value:,}" if isinstance(value, int) else None

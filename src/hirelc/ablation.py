"""A comparison on equal terms: every search strategy, and the method without each part, over several seeds.

Each variant is a whole run of `compress`: the same network, data, goal, training samples and full measurements. What is
compared is what its search found. Finished runs are never repeated, so a comparison may be stopped and gone on with.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from hirelc.config import PARTS, STRATEGY_NAMES, Config
from hirelc.data import Splits
from hirelc.errors import HirelcError, RunError
from hirelc.journal import JOURNAL, read_journal
from hirelc.pipeline import compress
from hirelc.policy import Goal
from hirelc.progress import Reporter
from hirelc.search.baselines import check_libraries
from hirelc.store import atomic_write
from hirelc.task import Task

PLAN, RESULTS = "plan.json", "ablation.json"
RESULT = "result.json"
FAILURE = "failure.json"
WITHOUT = "without-"
ALL = (*STRATEGY_NAMES, *(WITHOUT + part for part in PARTS))
METHOD = "hirelc"
SLACK = 1.002  # of the byte limit: files within it count as equally long

Load = Callable[[int], Splits]
Make = Callable[[int], nn.Module]


@dataclass(frozen=True)
class Variant:
    """One row of the comparison: a strategy, or the method without a part."""

    name: str
    strategy: str
    without: str | None

    @classmethod
    def called(cls, name: str) -> Variant:
        """
        :raises RunError: there is no such variant
        """
        if name not in ALL:
            raise RunError(f"unknown variant {name!r}: use some of {', '.join(ALL)}, with commas between them")
        if name.startswith(WITHOUT):
            return cls(name, METHOD, name.removeprefix(WITHOUT))
        return cls(name, name, None)


@dataclass(frozen=True)
class Plan:
    """What is compared.

    :param network, data: their names, so that two comparisons are not taken for one
    :param config: of every run but its seed, strategy and part
    """

    network: str
    data: str
    goal: Goal
    config: Config
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.variants or not self.seeds:
            raise RunError("nothing to compare: name a variant (--variants) and at least one seed (--seeds)")

    def config_of(self, variant: Variant, seed: int) -> Config:
        search = replace(self.config.search, strategy=variant.strategy, without=variant.without)
        return replace(self.config, seed=seed, search=search)

    def terms(self) -> dict[str, Any]:
        """What must be the same for results to stand in one table; variants and seeds may be added later."""
        config = self.config_of(Variant.called(METHOD), 0).to_json()
        return {"network": self.network, "data": self.data, "goal": asdict(self.goal), "config": config}


@dataclass(frozen=True)
class Outcome:
    """What one run came to, read from its folder.

    :param drop_points: lost on the search-validation split, against the original
    :param within: whether the file is as short as the goal wants
    :param found_by: who proposed the best measurement ("reference", "vote", "knapsack", ...)
    :param measurements: with full training; :param short: with less
    :param curve: least drop among the files within the limit, after each measurement; None before the first of them
    :param excess_loss: mostly the task's own, beyond the original's, on the search-validation split; None after a final
        fine-tune
    :param test_loss: points lost on the test split; None where it stayed sealed
    :param failure: why there is no result; all numbers are 0 then
    """

    variant: str
    seed: int
    size_bytes: int = 0
    ratio: float = 0.0
    drop_points: float = math.nan
    within: bool = False
    found_by: str = ""
    measurements: int = 0
    short: int = 0
    failed: int = 0
    images_seen: int = 0
    seconds: float = 0.0
    curve: tuple[float | None, ...] = ()
    excess_loss: float | None = None
    test_loss: float | None = None
    failure: str | None = None

    def to_json(self) -> dict[str, Any]:
        fields = asdict(self)
        return {**fields, "drop_points": None if math.isnan(self.drop_points) else self.drop_points}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """As `OUT/ablation.json` holds it."""
        drop = math.nan if data["drop_points"] is None else data["drop_points"]
        return cls(**{**data, "drop_points": drop, "curve": tuple(data["curve"])})


def ablate(make: Make, load: Load, task: Task, plan: Plan, out: Path, say: Reporter) -> tuple[Outcome, ...]:
    """Runs what is not there yet and writes OUT/ablation.json after every run.

    :param make: the network for a seed; :param load: its data for a seed
    :returns: in the order of variants and seeds
    :raises RunError: OUT holds another comparison, or a variant needs a library that is not installed
    """
    for variant in plan.variants:
        check_libraries(variant.strategy)
    _check_terms(plan, out)
    todo = [(variant, seed) for seed in plan.seeds for variant in plan.variants if not _finished(out, variant, seed)]
    total = len(plan.seeds) * len(plan.variants)
    if len(todo) < total:
        say.line(f"{total - len(todo)} of {total} runs are there already")
    begun = time.monotonic()
    for done, (variant, seed) in enumerate(todo):
        left = f", about {_words((time.monotonic() - begun) / done * (len(todo) - done))} left" if done else ""
        say.line(f"run {total - len(todo) + done + 1}/{total}: {variant.name}, seed {seed}{left}")
        _run(make, load, task, plan, variant, seed, out, say)
        write_results(plan, outcomes(plan, out), out)
    found = outcomes(plan, out)
    write_results(plan, found, out)
    return found


def run_folder(out: Path, variant: Variant, seed: int) -> Path:
    return out / "runs" / variant.name / f"seed{seed}"


def _finished(out: Path, variant: Variant, seed: int) -> bool:
    folder = run_folder(out, variant, seed)
    return (folder / RESULT).is_file() or (folder / FAILURE).is_file()


def _check_terms(plan: Plan, out: Path) -> None:
    """
    :raises RunError: OUT holds a comparison on other terms
    """
    wanted = json.dumps(plan.terms(), indent=2) + "\n"
    path = out / PLAN
    if path.is_file():
        there = json.loads(path.read_text())
        other = [name for name, value in json.loads(wanted).items() if there.get(name) != value]
        if other:
            raise RunError(f"{out} holds a comparison with another {other[0]}: choose another folder with --out")
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out} cannot be made ({error.strerror}): choose another folder with --out") from error
    atomic_write(path, wanted.encode())


def _run(make: Make, load: Load, task: Task, plan: Plan, variant: Variant, seed: int, out: Path, say: Reporter) -> None:
    """One run. A variant that finds nothing is a row of the table with its reason."""
    folder = run_folder(out, variant, seed)
    _put_aside(folder)
    splits = load(seed)
    config = plan.config_of(variant, seed)
    test = splits.test if config.train.final else None  # without the end of a run there is nothing to read it for
    try:
        compress(
            make(seed), splits.train, splits.validation, plan.goal, folder, test=test, config=config, task=task, reporter=say
        )
    except HirelcError as error:
        if not (folder / JOURNAL).is_file():
            raise  # the input is wrong, not the variant
        say.warn(f"{variant.name}, seed {seed}: {error}")
        atomic_write(folder / FAILURE, (json.dumps({"failure": str(error)}) + "\n").encode())


def _put_aside(folder: Path) -> None:
    """An interrupted run makes room for a new one, and is kept."""
    if folder.exists():
        number = next(n for n in range(1, 10_000) if not folder.with_name(f"{folder.name}.interrupted-{n}").exists())
        folder.rename(folder.with_name(f"{folder.name}.interrupted-{number}"))


def outcomes(plan: Plan, out: Path) -> tuple[Outcome, ...]:
    """What the finished runs came to, in the order of variants and seeds."""
    return tuple(
        outcome_of(run_folder(out, variant, seed), variant.name, seed)
        for variant in plan.variants
        for seed in plan.seeds
        if _finished(out, variant, seed)
    )


def outcome_of(folder: Path, variant: str, seed: int) -> Outcome:
    """A finished run as a row."""
    if (folder / FAILURE).is_file():
        return Outcome(variant, seed, failure=json.loads((folder / FAILURE).read_text())["failure"])
    result = json.loads((folder / RESULT).read_text())
    rows = {row["name"]: row for row in result["rows"]}
    original, compressed = rows["original"], rows["compressed"]
    limit = Goal.from_json(result["goal"]).byte_limit(original["size_bytes"])
    events = [event for event in read_journal(folder) if event["event"] == "measurement"]
    taken = [event for event in events if event["measurement"]["failure"] is None]
    best = min(taken, key=lambda event: _rank(event["measurement"], limit), default=None)
    full = [event["measurement"].get("fidelity", "full") == "full" for event in events]
    drop = original["validation"] - compressed["validation"]
    # the candidate that was delivered as it was measured
    losses = [
        e["measurement"].get("excess_loss") for e in taken if math.isclose(e["measurement"]["drop_points"], drop, abs_tol=1e-9)
    ]
    tests = [row["test"] for row in (original, compressed)]
    return Outcome(
        variant,
        seed,
        size_bytes=compressed["size_bytes"],
        ratio=compressed["ratio"],
        drop_points=drop,
        within=limit is None or compressed["size_bytes"] <= SLACK * limit,
        found_by="" if best is None else best["origin"],
        measurements=sum(full),
        short=len(full) - sum(full),
        failed=len(events) - len(taken),
        images_seen=result["images_seen"],
        seconds=compressed["seconds"],
        curve=_curve(events, limit),
        excess_loss=min((loss for loss in losses if loss is not None), default=None),
        test_loss=None if None in tests else tests[0] - tests[1],
    )


def _rank(measurement: Mapping[str, Any], limit: int | None) -> tuple[bool, float]:
    return limit is not None and measurement["size_bytes"] > SLACK * limit, measurement["drop_points"]


def _curve(events: Sequence[Mapping[str, Any]], limit: int | None) -> tuple[float | None, ...]:
    curve: list[float | None] = []
    best: float | None = None
    for event in events:
        measurement = event["measurement"]
        over, drop = _rank(measurement, limit)
        if measurement["failure"] is None and not over:
            best = drop if best is None else min(best, drop)
        curve.append(best)
    return tuple(curve)


def write_results(plan: Plan, found: Sequence[Outcome], out: Path) -> Path:
    """Writes OUT/ablation.json: the terms, and every run as it came out."""
    document = {**plan.terms(), "seeds": plan.seeds, "runs": [outcome.to_json() for outcome in found]}
    path = out / RESULTS
    atomic_write(path, (json.dumps(document, indent=2) + "\n").encode())
    return path


def _words(seconds: float) -> str:
    return f"{round(seconds)} s" if seconds < 90 else f"{round(seconds / 60)} min"

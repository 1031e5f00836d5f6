"""How fast this network searches and trains on this machine, and what a run makes of its time."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np

from hirelc.artifact.container import pack
from hirelc.candidates import Bench, Candidate
from hirelc.compression.rate import FILES
from hirelc.config import Config, SearchConfig
from hirelc.errors import RunError
from hirelc.landscape import Landscape
from hirelc.measure.evaluate import accuracy, native_precision
from hirelc.policy import Policy
from hirelc.preparing import fisher_samples
from hirelc.run import Run
from hirelc.search.baselines import make_search
from hirelc.search.bounds import Bounds
from hirelc.search.budgets import ByteTarget
from hirelc.search.fitting import reference
from hirelc.searching import CLIMBING, SWAPS, full_measurements, improves, racing
from hirelc.timing import Pace, Search, Speeds, TimeBudget, TimePlan, plan_time, time_words

AGENT_STEPS = 64  # of each agent, to see how fast they are
FEWEST_STEPS, MOST_STEPS, STEP_SECONDS = 4, 16, 3.0  # optimizer steps to see how fast training is, and for how long
WARM_UP_STEPS = 2


def paced(run: Run, bench: Bench, landscape: Landscape, budget: TimeBudget) -> Run:
    """The run with a plan for its time, and the numbers of the plan in its settings. Journaled as "time_plan".

    :raises RunError: the time is too short
    """
    speeds = measure_speeds(run, bench, landscape)
    run.directory.journal("speeds", **asdict(speeds))
    train = run.config.train
    plan = plan_time(
        budget, speeds, options(run.config.search), train.search_share, train.batch_size, fisher_samples(run.config, run.train)
    )
    config = planned(run.config, plan.search, plan.images)
    run.directory.journal("time_plan", **plan.to_json())
    run.directory.write_json("config.json", config)
    run.say.line(
        f"time: {time_words(budget.seconds)}, of it {plan.spent:.0f} s gone; cycles: {plan.search.cycles}, "
        f"agent steps: {plan.search.agent_steps}, training images: {plan.images:,}; the search will take about "
        f"{plan.search_seconds:.0f} s, the final fine-tune and what follows about {plan.final_seconds:.0f} s"
    )
    return replace(run, config=config, pace=Pace(budget, plan))


def resumed_pace(run: Run, plan: TimePlan, budget: TimeBudget) -> Run:
    """The run with the plan that it made before it was interrupted."""
    return replace(run, config=planned(run.config, plan.search, plan.images), pace=Pace(budget, plan))


def planned(config: Config, search: Search, images: int) -> Config:
    """The settings with the numbers of a plan."""
    low, high = config.search.low_level_steps, config.search.high_level_steps
    settings = replace(
        config.search,
        cycles=search.cycles,
        trials=search.trials,
        low_level_steps=search.agent_steps,
        high_level_steps=max(1, high * search.agent_steps // low),
    )
    return replace(config, search=settings, train=replace(config.train, images=images))


def options(settings: SearchConfig) -> list[Search]:
    """Ways to search, from the one that the settings ask for to one cycle of the least."""
    found = []
    for cycles in range(settings.cycles, 0, -1):
        for trials in dict.fromkeys((settings.trials, 1)):
            for part in (1, 2, 4):
                steps = max(min(AGENT_STEPS, settings.low_level_steps), settings.low_level_steps // part)
                one = replace(settings, cycles=cycles, trials=trials)
                found.append(Search(cycles, trials, steps, _measurements(one), full_measurements(one)))
    return list(dict.fromkeys(found))


def _measurements(settings: SearchConfig) -> int:
    """Candidates that are measured, counting every fidelity."""
    swapped = SWAPS if improves(settings) else 0
    return 1 + settings.cycles + racing(settings) * (settings.contenders - 1 + CLIMBING) + swapped


def measure_speeds(run: Run, bench: Bench, landscape: Landscape) -> Speeds:
    """A few real steps of everything, on copies: nothing of it stays.

    :raises RunError: not even a few steps can be trained
    """
    batch, control = run.config.train.batch_size, run.config.train.control
    with run.say.stage("measuring speeds"):
        agent_step = _agent_step(run, landscape)
        fit = reference(landscape, ByteTarget(landscape, run.goal).bytes, Bounds.of(run.config.search))
        policy, scratch = landscape.policy(fit.choices), replace(bench)
        _, first, _ = _trained(scratch, policy, fit.size_bytes, WARM_UP_STEPS, batch)
        taken = min(MOST_STEPS, max(FEWEST_STEPS, int(STEP_SECONDS / max(first, 1e-6))))
        seconds, step, candidate = _trained(scratch, policy, fit.size_bytes, taken, batch)
        compressed = scratch.revive(candidate)
        look = _seconds(lambda: pack(compressed)) if run.config.train.rate_term else 0.0
        step = max(step - look, 0.3 * step)
        measurement = max(seconds - taken * step, 0.0) + max(FILES - taken, 0) * look
        precision = native_precision(run.config.train.precision, run.config.device)
        evaluation = _seconds(
            lambda: accuracy(compressed, run.validation, run.task, device=run.config.device, precision=precision)
        )
        control_step = 0.0
        if control:
            stamps = Stamps()
            student = copy.deepcopy(run.model)
            bench.trainer.finetune(student, FEWEST_STEPS * batch, name="speed", evaluations=1, progress=stamps)
            control_step = stamps.median
    evaluations = run.config.train.evaluations * (2 if control else 1) + (1 if control else 0)
    tested = 0 if run.test is None else 3 * run.test.samples / run.validation.samples
    return Speeds(
        image=step / batch,
        control_image=control_step / batch,
        measurement=measurement,
        ending=measurement + (evaluations + tested) * evaluation,
        agent_step=agent_step,
    )


def _trained(bench: Bench, policy: Policy, size_bytes: int, steps: int, batch: int) -> tuple[float, float, Candidate]:
    """Seconds of a measurement with so many optimizer steps, and of one of these."""
    stamps = Stamps()
    found, candidate = bench.measure(policy, size_bytes, steps * batch, "speed", stamps)
    if candidate is None:
        raise RunError(f"how fast the training is cannot be measured: {found.failure}")
    return found.seconds, stamps.median, candidate


def _agent_step(run: Run, landscape: Landscape) -> float:
    """Seconds of one environment step of every agent, from a search that is thrown away."""
    settings = replace(run.config.search, cycles=1, trials=1, low_level_steps=AGENT_STEPS, high_level_steps=AGENT_STEPS)
    search = make_search(landscape, run.goal, settings, run.config.seed)
    return _seconds(lambda: search.propose(0)) / AGENT_STEPS


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


class Stamps:
    """Told of every optimizer step, it knows how long one takes, whatever happens between some of them."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._times = clock, [clock()]

    def __call__(self, _images: int) -> None:
        self._times.append(self._clock())

    @property
    def median(self) -> float:
        """Seconds between steps. The first, with all that comes before it, counts only where there is no other."""
        between = [after - before for before, after in pairwise(self._times)]
        return float(np.median(between[1:] or between or [0.0]))

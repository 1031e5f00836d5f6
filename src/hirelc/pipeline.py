"""The active-learning cycle, wired: the one place that knows all the parts.

baseline -> Fisher -> proxy -> [budgets -> block policies -> vote -> fine-tune -> measure] x cycles -> pick ->
long fine-tune -> file -> read back -> test split, once.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hirelc.batches import Batches, Sealed, as_batches, first_samples, samples_per_batch
from hirelc.candidates import Bench
from hirelc.config import Config, TrainConfig
from hirelc.data_checks import check_classes, compare_splits, look_through
from hirelc.ending import finish
from hirelc.errors import RunError
from hirelc.fingerprint import FINGERPRINT, fingerprint
from hirelc.labelled import Labelled, LabelledSealed
from hirelc.measure.sensitivity import Sensitivity
from hirelc.models import answers, check_fits, check_task, place, settled
from hirelc.moving import picked
from hirelc.network.trace import check_module, float_copy, trace
from hirelc.pacing import paced, resumed_pace
from hirelc.policy import Goal
from hirelc.preparing import (
    calibration_inputs,
    describe,
    importance_of,
    make_landscape,
    make_reconstruction,
    make_trainer,
    measure_baseline,
    measure_sensitivity,
)
from hirelc.progress import Reporter, RichReporter
from hirelc.replaying import Recorded
from hirelc.results import Result
from hirelc.run import Run
from hirelc.searching import images_per_measurement, search
from hirelc.store import INPUTS, RunDirectory, check_unused, environment, locked
from hirelc.task import CLASSIFICATION, Task
from hirelc.timing import TimeBudget, TimePlan, parse_time, time_words
from hirelc.tracking.choosing import trackers
from hirelc.watching import noted

CHECKED_SAMPLES = 4096  # of each split, before the run starts


def compress(
    model: nn.Module,
    train: object,
    val: object,
    goal: Goal,
    out: str | Path,
    *,
    test: object | None = None,
    config: Config | None = None,
    task: Task = CLASSIFICATION,
    reporter: Reporter | None = None,
    time: str | float | TimeBudget | None = None,
    inputs: Mapping[str, Any] | None = None,
    track: Sequence[str] = (),
) -> Result:
    """Compresses a network to a goal and writes `out`/model.hirelc.

    >>> result = hirelc.compress(net, train, val, goal=hirelc.Goal(ratio=3), out="runs/new", config=config)
    >>> result.path.as_posix(), result.compressed.ratio >= 3
    ('runs/new/model.hirelc', True)

    :param model: any trained module; it is not changed
    :param train: fine-tuning data: a DataLoader, a Dataset, two tensors (x, y), or `Batches`
    :param val: the search-validation split, disjoint from both others
    :param test: optional; read once per reported number, after the search
    :param out: a new folder for the run
    :param time: wall time of the whole run, as "20m" or in seconds: images and cycles then follow from how fast things are
    :param inputs: how a command came by model and data: kept, so that `hirelc resume` needs nothing else
    :param track: who else gets the numbers: "mlflow", "mlflow:URI"; TensorBoard does where it is installed; "none": nobody
    :returns: the table of original, control and compressed, and where the file lies; `shortfall` says why a goal
        was missed (the best policy found is delivered all the same)
    :raises HirelcError: with the cause and the fix
    """
    config, budget = _timed(config or Config(), time)
    say = reporter or RichReporter()
    # all that can be wrong with the input is found before a folder is made: a second try may use the same name
    check_unused(out)
    followers = trackers(track, say)
    make = prepare(model, {"train": train, "val": val, "test": test}, goal, config, task, say)
    with locked(out):
        run = make(RunDirectory.create(out))
        begin(run, inputs)
        run.directory.observers += followers
        return carry_out(run, budget)


def begin(run: Run, inputs: Mapping[str, Any] | None, **more: Any) -> None:
    """Writes what a run is known by, and its first event.

    :param more: fields of that event
    """
    run.directory.write_json(FINGERPRINT, fingerprint(run))
    if inputs is not None:
        run.directory.write_json(INPUTS, inputs)
    run.directory.write_json("config.json", run.config)
    run.directory.write_json("environment.json", environment())
    run.directory.journal(
        "start",
        command=command_line(),
        goal=run.goal,
        seed=run.config.seed,
        metric=run.task.name,
        train=run.train.samples,
        validation=run.validation.samples,
        test=None if run.test is None else run.test.samples,
        **more,
    )


def prepare(
    model: nn.Module,
    data: Mapping[str, object],
    goal: Goal,
    config: Config,
    task: Task,
    say: Reporter,
    *,
    searches: bool = True,
) -> Callable[[RunDirectory], Run]:
    """The run of a folder that is still to be named, all its input looked at.

    :param data: "train", "val" and "test" (or None)
    :param searches: whether the settings must leave training samples to each measurement of a search
    :raises HirelcError: with the cause and the fix
    """
    check_module(model)
    batch, labelled, test = config.train.batch_size, task.targets != "none", data["test"]
    splits: tuple[Batches, Batches] = (
        as_batches(data["train"], batch, labelled),
        as_batches(data["val"], batch, labelled),
    )
    if found := samples_per_batch(splits[0]):  # a loader, or few samples, decide themselves
        config = replace(config, train=replace(config.train, batch_size=found))
    sealed = None if test is None else test if isinstance(test, Sealed) else Sealed(as_batches(test, batch, labelled))
    if searches and config.train.seconds is None:
        images_per_measurement(config, splits[0])
    original = _prepared(model, config.device)
    task = settled(task, original, splits[0], config.device)
    for note in _check_data(original, task, *splits, config.device):
        say.warn(note)
    if task.label is not None:
        label = answers(original, task, config.device)
        splits, sealed = (splits[0], Labelled(splits[1], label)), None if sealed is None else LabelledSealed(sealed, label)
    spec = replace(trace(original, first_samples(splits[0], 2)[0], config.blocks), align=config.align)
    return partial(Run, original, spec, *splits, sealed, goal, config, task, say=say)


def carry_out(run: Run, budget: TimeBudget | None) -> Result:
    """A run from its first event, or from wherever its folder stands, to its result.

    :raises HirelcError: with the cause; the journal keeps it
    """
    with noted(run.directory, run.say, "hirelc resume"):
        return _execute(run, budget)


def _prepared(model: nn.Module, device: str) -> nn.Module:
    """A float32 copy in eval mode, on the device; a compiled module is unwrapped."""
    return place(float_copy(getattr(model, "_orig_mod", model)), device)


def _check_data(model: nn.Module, task: Task, train: Batches, validation: Batches, device: str) -> list[str]:
    """What is odd about the splits.

    :raises DataError: the network does not take these inputs, or the targets are not what it or the task takes
    """
    found = []
    for split, where in ((train, "the fine-tuning split"), (validation, "the search-validation split")):
        outputs = check_fits(model, split, device, task)
        seen = look_through(split, where, CHECKED_SAMPLES, task.targets)
        check_classes(seen.classes, outputs, where)
        check_task(model, split, device, task)
        found.append(seen)
    return compare_splits(found[0], found[1], task.targets)


def _timed(config: Config, time: str | float | TimeBudget | None) -> tuple[Config, TimeBudget | None]:
    """The settings with the time that is given either way, and the clock.

    :raises RunError: images are given as well, or the time makes no sense
    """
    if isinstance(time, str):
        time = parse_time(time)
    budget = time if isinstance(time, TimeBudget) else None
    seconds = budget.seconds if budget is not None else time if isinstance(time, float | int) else config.train.seconds
    if seconds is None:
        return config, None
    if config.train.images != TrainConfig.images:
        raise RunError(
            f"a time ({time_words(seconds)}) and a number of training images ({config.train.images:,}) exclude each other: "
            "leave out --images, or --time"
        )
    return replace(config, train=replace(config.train, seconds=seconds)), budget or TimeBudget(seconds)


def make_bench(run: Run) -> tuple[float, Sensitivity, dict[str, Tensor], Bench]:
    """What measuring needs: accuracy of the original, sensitivity, importance by which channels are kept, and the bench."""
    baseline = measure_baseline(run)
    sensitivity = measure_sensitivity(run)
    importance = importance_of(run, sensitivity)
    bench = Bench(run.model, run.spec, make_trainer(run), importance, sensitivity.fisher, baseline, sensitivity.samples)
    bench.exact = run.config.calibrate_only or not run.config.train.final
    if run.config.activations == "int8":
        bench.calibration = calibration_inputs(run)
    if run.config.calibrate_only:
        bench.reconstruction = make_reconstruction(run)
    return baseline, sensitivity, importance, bench


def _execute(run: Run, budget: TimeBudget | None) -> Result:
    describe(run)
    baseline, sensitivity, importance, bench = make_bench(run)
    plan = run.directory.event("time_plan")
    if budget is not None and plan is not None:
        run = resumed_pace(run, TimePlan.from_json(plan), budget)
    searched = Recorded(run).searched(bench)
    if searched is None:
        landscape = make_landscape(run, sensitivity, importance)
        if run.source is not None:
            searched = picked(run, bench, landscape, run.source)
        else:
            if budget is not None and plan is None:
                run = paced(run, bench, landscape, budget)
            searched = search(run, bench, landscape)
    return finish(run, bench, searched.picked, baseline, searched.measurements, searched.seconds)


def command_line() -> str | None:
    """The command line of this process, when it is hirelc's."""
    return shlex.join(["hirelc", *sys.argv[1:]]) if Path(sys.argv[0]).name == "hirelc" else None

"""The active-learning cycle, wired: the one place that knows all the parts.

baseline -> Fisher -> proxy -> [budgets -> block policies -> vote -> fine-tune -> measure] x cycles -> pick ->
long fine-tune -> file -> read back -> test split, once.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path

from torch import nn

from hirelc.batches import Batches, Sealed, as_batches, first_samples
from hirelc.candidates import Bench
from hirelc.config import Config
from hirelc.data_checks import check_classes, compare_splits, look_through
from hirelc.ending import finish
from hirelc.labelled import Labelled, LabelledSealed
from hirelc.models import answers, check_fits, check_task, place, settled
from hirelc.network.trace import check_module, float_copy, trace
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
from hirelc.results import Result
from hirelc.run import Run
from hirelc.searching import images_per_measurement, search
from hirelc.store import RunDirectory, check_unused, environment
from hirelc.task import CLASSIFICATION, Task
from hirelc.watching import watched

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
    :returns: the table of original, control and compressed, and where the file lies; `shortfall` says why a goal
        was missed (the best policy found is delivered all the same)
    :raises HirelcError: with the cause and the fix
    """
    check_module(model)
    config = config or Config()
    say = reporter or RichReporter()
    batch = config.train.batch_size
    labelled = task.targets != "none"
    splits: tuple[Batches, Batches] = as_batches(train, batch, labelled), as_batches(val, batch, labelled)
    sealed = None if test is None else test if isinstance(test, Sealed) else Sealed(as_batches(test, batch, labelled))
    # all that can be wrong with the input is found before a folder is made: a second try may use the same name
    check_unused(out)
    images_per_measurement(config, splits[0])
    original = _prepared(model, config.device)
    task = settled(task, original, splits[0], config.device)
    for note in _check_data(original, task, *splits, config.device):
        say.warn(note)
    if task.label is not None:
        label = answers(original, task, config.device)
        splits, sealed = (splits[0], Labelled(splits[1], label)), None if sealed is None else LabelledSealed(sealed, label)
    spec = replace(trace(original, first_samples(splits[0], 2)[0], config.blocks), align=config.align)
    run = Run(
        model=original,
        spec=spec,
        train=splits[0],
        validation=splits[1],
        test=sealed,
        goal=goal,
        config=config,
        task=task,
        directory=RunDirectory.create(out),
        say=say,
    )
    with watched(run.directory, say):
        try:
            return _execute(run)
        except KeyboardInterrupt:
            run.directory.journal("interrupted")
            raise


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


def _execute(run: Run) -> Result:
    run.directory.write_json("config.json", run.config)
    run.directory.write_json("environment.json", environment())
    run.directory.journal(
        "start",
        command=_command(),
        goal=run.goal,
        seed=run.config.seed,
        metric=run.task.name,
        train=run.train.samples,
        validation=run.validation.samples,
        test=None if run.test is None else run.test.samples,
    )
    describe(run)
    baseline = measure_baseline(run)
    sensitivity = measure_sensitivity(run)
    importance = importance_of(run, sensitivity)
    bench = Bench(run.model, run.spec, make_trainer(run), importance, sensitivity.fisher, baseline, sensitivity.samples)
    if run.config.activations == "int8":
        bench.calibration = calibration_inputs(run)
    if run.config.calibrate_only:
        bench.reconstruction = make_reconstruction(run)
    landscape = make_landscape(run, sensitivity, importance)
    archive, measurements, search_seconds = search(run, bench, landscape)
    pick = archive.pick(run.goal, run.spec.original_bytes)
    run.directory.journal("pick", policy=pick.entry.policy.digest, measurement=pick.entry.measurement)
    return finish(run, bench, pick.entry.payload, baseline, measurements, search_seconds)


def _command() -> str | None:
    """The command line of this process, when it is hirelc's."""
    return shlex.join(["hirelc", *sys.argv[1:]]) if Path(sys.argv[0]).name == "hirelc" else None

"""Another goal, or more sizes, from a run that was made: policies are moved to other sizes, nothing is searched anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from hirelc.checkpoints import clear_checkpoints, load_candidate, save_candidate
from hirelc.config import Config
from hirelc.controls import planned_images
from hirelc.errors import RunError
from hirelc.fingerprint import differences, fingerprint
from hirelc.journal import ADDED, SEARCHED
from hirelc.moving import Workshop, closest, measured_points
from hirelc.pipeline import begin, carry_out, make_bench, prepare
from hirelc.points import SAME_SIZE, Point, nearest, next_added, read_points, trained_sizes
from hirelc.policy import Goal, Measurement
from hirelc.preparing import fisher_samples, make_landscape
from hirelc.progress import Reporter, RichReporter
from hirelc.results import Result
from hirelc.resuming import stored
from hirelc.run import Run
from hirelc.store import RunDirectory, check_unused, locked, read_journal
from hirelc.task import CLASSIFICATION, Task
from hirelc.tracking.choosing import trackers
from hirelc.watching import noted

LARGEST = 8.0  # ratio of the largest file on a front
USELESS = 10.0  # points lost, beyond which nothing smaller is measured
BEYOND = 1.6  # how much smaller than the smallest measured file a front looks


def pick(
    run: str | Path,
    model: nn.Module,
    train: object,
    val: object,
    goal: Goal,
    out: str | Path,
    *,
    test: object | None = None,
    task: Task = CLASSIFICATION,
    reporter: Reporter | None = None,
    images: int | None = None,
    inputs: Mapping[str, Any] | None = None,
    track: Sequence[str] = (),
) -> Result:
    """Another goal from the same run: no new search, only the last fine-tune.

    The measured candidate that is closest to the goal is moved to it, by the cost model, and trained on. Where the goal
    limits the drop alone, the smallest candidate within it is taken as it is. What comes of it is a run like any other:
    `resume` goes on with it when it was interrupted.

    >>> hirelc.pick("runs/mine", net, train, val, hirelc.Goal(ratio=2), "runs/half").compressed.ratio >= 2
    True

    :param run: the folder of a run that measured something
    :param model: as the run was given it, and so are `train`, `val`, `test` and `task`
    :param out: a new folder
    :param images: training samples of the fine-tune; as many as the run's own by default
    :param track: as of `compress`
    :raises RunError: the run holds no candidate, or something given is not what it began with
    :raises HirelcError: as `compress`
    """
    folder, say = Path(run), reporter or RichReporter()
    then = stored(folder)
    points = measured_points(folder)
    check_unused(out)
    followers = trackers(track, say)
    config, data = Config.from_json(then["config"]), {"train": train, "val": val, "test": test}
    make = prepare(model, data, goal, config, task, say, searches=False)
    with locked(out):
        made = make(RunDirectory.create(out))
        _check_same(folder, then, made)
        made = _for_the_last_fine_tune(made, _usual_final_images(folder, config) if images is None else images)
        point = closest(made, points)
        begin(made, inputs, picked_from=folder, start_candidate=point.candidate)
        say.line(f"from {point.size_bytes:,} bytes = {point.ratio:.1f}x, drop {point.drop_points:+.2f} points")
        made.directory.observers += followers
        return carry_out(made, None)


def _usual_final_images(folder: Path, config: Config) -> int:
    """What the run's search left to its own final fine-tune; where its time is limited, what there was time for."""
    if (planned := planned_images(folder)) is not None:
        return planned  # the control is the same then
    events = {event["event"]: event for event in read_journal(folder)}
    if "time_final" in events:
        return int(events["time_final"]["images"])
    whole = events["time_plan"]["images"] if "time_plan" in events else config.train.images
    return int(whole * (1 - config.train.search_share))


def _for_the_last_fine_tune(run: Run, images: int) -> Run:
    """The run with training samples for that alone."""
    config = run.config
    train = replace(config.train, images=images + fisher_samples(config, run.train), seconds=None)
    return replace(run, config=replace(config, train=train))


def _check_same(folder: Path, then: Mapping[str, Any], run: Run) -> None:
    """:raises RunError: network, weights, data or task are not those of the run"""
    now = fingerprint(run)
    test = now["test"] and then["test"]  # it is not needed
    changes = differences({**then, "goal": now["goal"], "config": now["config"], "test": test}, now)
    if changes:
        raise RunError(f"{folder} was made with something else: {'; '.join(changes)}: give what it began with")


def extend_front(
    run: str | Path,
    model: nn.Module,
    train: object,
    val: object,
    *,
    points: int = 8,
    task: Task = CLASSIFICATION,
    reporter: Reporter | None = None,
    images: int | None = None,
) -> list[Point]:
    """Measures what a run's front lacks: sizes from 1/8 of the original to the smallest useful one.

    Each is a policy of the run, moved to that size and trained for a while from the weights of the point before, the
    largest first. What is measured is kept in the run's folder.

    :param points: different sizes wanted
    :param images: training samples for each; as many as a measurement of the run's search by default
    :returns: all points of the run, smallest first
    :raises RunError: the run holds no candidate, or something given is not what it began with
    """
    folder, say = Path(run), reporter or RichReporter()
    then = stored(folder)
    found = measured_points(folder)
    original = found[0].ratio * found[0].size_bytes
    if len(trained_sizes(found)) >= points:
        return found
    wanted = missing_sizes(found, original, points)
    config, data = Config.from_json(then["config"]), {"train": train, "val": val, "test": None}
    with locked(folder):
        make = prepare(model, data, Goal(**then["goal"]), config, task, say, searches=False)
        made = make(RunDirectory.open(folder))
        _check_same(folder, then, made)
        with noted(made.directory, say, "hirelc front"):
            _extend(made, wanted, images)
        if made.directory.event("result") is not None:
            clear_checkpoints(folder)
    return read_points(folder)


def _extend(run: Run, sizes: Sequence[int], images: int | None) -> None:
    """Measures a point of each size, the largest first, until too much is lost."""
    _, sensitivity, importance, bench = make_bench(run)
    shop = Workshop(run, bench, make_landscape(run, sensitivity, importance))
    each = images if images is not None else _usual_images(run)
    for number, size in enumerate(sizes, start=1):
        ratio = run.spec.original_bytes / size
        measurement = _add_point(shop, size, each, f"point {number} of {len(sizes)}: {ratio:.1f}x")
        if measurement.drop_points > USELESS:
            run.say.line(f"{measurement.drop_points:.1f} points are lost at {ratio:.0f}x: nothing smaller is useful")
            break


def missing_sizes(found: list[Point], original: float, points: int) -> list[int]:
    """Sizes in bytes, largest first, that the front lacks: `points` of them in equal factors, but for those measured."""
    have = trained_sizes(found)
    largest = original / LARGEST
    smallest = min([largest, *(point.size_bytes for point in have)]) / BEYOND
    grid = [largest * (smallest / largest) ** (i / max(points - 1, 1)) for i in range(points)]
    return [int(size) for size in grid if all(abs(size / point.size_bytes - 1) > SAME_SIZE for point in have)]


def _usual_images(run: Run) -> int:
    seen: list[int] = [e["measurement"]["images_seen"] for e in run.directory.events if e["event"] == SEARCHED]
    return max([*seen, run.config.train.batch_size])


def _add_point(shop: Workshop, size: int, images: int, title: str) -> Measurement:
    run, folder = shop.run, shop.run.directory.path
    start = nearest(read_points(folder), size)
    assert start is not None  # there are points
    candidate = load_candidate(folder, start.candidate)
    shop.bench.go_on_from(candidate)
    name = next_added(run.directory)
    with run.say.stage(title, images) as stage:
        policy = shop.moved(candidate, size)
        measurement, made = shop.bench.measure(policy, size, images, name, stage.advance)
    if made is not None:
        save_candidate(run.directory, name, made)
    run.directory.journal(ADDED, candidate=name, origin="front", policy=policy, measurement=measurement, target_bytes=size)
    if measurement.failure is None:
        ratio = run.spec.original_bytes / measurement.size_bytes
        run.say.line(f"{measurement.size_bytes:,} bytes = {ratio:.1f}x, drop {measurement.drop_points:+.2f} points")
    else:
        run.say.warn(f"{title}: rejected: {measurement.failure}")
    return measurement

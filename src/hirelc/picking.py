"""Another goal, or more sizes, from a run that was made: policies are moved to other sizes, nothing is searched anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from hirelc.candidates import Bench, Candidate
from hirelc.checkpoints import load_candidate, save_candidate
from hirelc.config import Config
from hirelc.ending import finish
from hirelc.errors import RunError
from hirelc.fingerprint import differences, fingerprint
from hirelc.landscape import Landscape
from hirelc.pipeline import begin, make_bench, prepare
from hirelc.points import ADDED, SAME_SIZE, Point, nearest, next_candidate, read_points, trained_sizes
from hirelc.policy import Goal, Measurement, Policy
from hirelc.preparing import describe, fisher_samples, make_landscape
from hirelc.progress import Reporter, RichReporter
from hirelc.results import Result
from hirelc.resuming import stored
from hirelc.run import Run
from hirelc.search.bounds import Bounds
from hirelc.search.fitting import fit_to_bytes
from hirelc.store import RunDirectory, check_unused, locked
from hirelc.task import CLASSIFICATION, Task

LARGEST = 8.0  # ratio of the largest file on a front
USELESS = 10.0  # points lost, beyond which nothing smaller is measured
BEYOND = 1.6  # how much smaller than the smallest measured file a front looks
AS_IT_IS = 0.02  # of the wanted size that a candidate may leave unused without being moved


@dataclass(frozen=True)
class _Workshop:
    """A run's network and data, opened again, to make candidates of other sizes."""

    run: Run
    bench: Bench
    landscape: Landscape
    baseline: float

    @classmethod
    def opened(cls, run: Run) -> _Workshop:
        baseline, sensitivity, importance, bench = make_bench(run)
        return cls(run, bench, make_landscape(run, sensitivity, importance), baseline)

    def moved(self, start: Candidate, size_bytes: int) -> Policy:
        """A candidate's policy at another size: precision and channels go where the proxy says they are worth most."""
        spec = self.run.spec
        choices = [tuple(start.policy[name] for name in block.kernels) for block in spec.blocks]
        bounds = [Bounds.of(self.run.config.search)] * len(choices)
        return self.landscape.policy(fit_to_bytes(self.landscape, choices, size_bytes, bounds).choices)

    def go_on_from(self, start: Candidate) -> None:
        self.bench.go_on_from(self.bench.revive(start))


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
) -> Result:
    """Another goal from the same run: no new search, only the last fine-tune.

    The measured candidate that is closest to the goal is moved to it, by the cost model, and trained on. Where the goal
    limits the drop alone, the smallest candidate within it is taken as it is.

    >>> hirelc.pick("runs/mine", net, train, val, hirelc.Goal(ratio=2), "runs/half").compressed.ratio >= 2
    True

    :param run: the folder of a run that measured something
    :param model: as the run was given it, and so are `train`, `val`, `test` and `task`
    :param out: a new folder
    :param images: training samples of the fine-tune; as many as the run's own by default
    :raises RunError: the run holds no candidate, or something given is not what it began with
    :raises HirelcError: as `compress`
    """
    folder, say = Path(run), reporter or RichReporter()
    then = stored(folder)
    points = _measured(folder)
    config = Config.from_json(then["config"])
    check_unused(out)
    make = prepare(model, {"train": train, "val": val, "test": test}, goal, config, task, say)
    with locked(out):
        made = _for_the_last_fine_tune(make(RunDirectory.create(out)), images)
        _check_same(folder, then, made)
        begin(made, inputs, picked_from=folder)
        describe(made)
        shop = _Workshop.opened(made)
        point = _closest(made, points)
        say.line(f"from {point.size_bytes:,} bytes = {point.ratio:.1f}x, drop {point.drop_points:+.2f} points")
        measurement, candidate = _at_goal(shop, load_candidate(folder, point.candidate))
        made.directory.journal("pick", policy=candidate.policy.digest, measurement=measurement)
        return finish(made, shop.bench, candidate, shop.baseline, [measurement], 0.0)


def _measured(folder: Path) -> list[Point]:
    """:raises RunError: nothing was measured yet"""
    points = read_points(folder)
    if not points:
        raise RunError(f"{folder} holds no measured candidate yet: `hirelc resume {folder}` goes on with its search")
    return points


def _for_the_last_fine_tune(run: Run, images: int | None) -> Run:
    """The run with training samples for that alone.

    :param images: None takes what the search left to it
    """
    config = run.config
    if images is None:
        images = int(config.train.images * (1 - config.train.search_share))
    budget = images + fisher_samples(config, run.train)
    return replace(run, config=replace(config, train=replace(config.train, images=budget)))


def _closest(run: Run, points: list[Point]) -> Point:
    """Where a pick starts from."""
    limit, max_drop = run.goal.byte_limit(run.spec.original_bytes), run.goal.max_drop
    if limit is None:
        within = [point for point in points if max_drop is None or point.drop_points <= max_drop]
        return min(within or points, key=lambda p: p.size_bytes if within else p.drop_points)
    found = nearest(points, limit)
    assert found is not None  # there are points
    return found


def _at_goal(shop: _Workshop, start: Candidate) -> tuple[Measurement, Candidate]:
    """The candidate, moved to the goal's size and calibrated there.

    :raises RunError: it cannot be calibrated there
    """
    limit = shop.run.goal.byte_limit(shop.run.spec.original_bytes)
    shop.go_on_from(start)
    size = len(start.data) if limit is None else limit
    policy = start.policy
    others = shop.run.goal.max_macs is not None or shop.run.goal.max_latency_ms is not None
    if others or not (1 - AS_IT_IS) * size <= len(start.data) <= size:
        policy = shop.moved(start, size)
    with shop.run.say.stage("calibrating at the goal's size"):
        measurement, candidate = shop.bench.measure(policy, size, 0, "picked", fidelity="calibrated")
    if candidate is None:
        raise RunError(f"the candidate cannot be moved to the goal: {measurement.failure}")
    save_candidate(shop.run.directory, 0, candidate)
    return measurement, candidate


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
    found = _measured(folder)
    original = found[0].ratio * found[0].size_bytes
    if len(trained_sizes(found)) >= points:
        return found
    wanted = missing_sizes(found, original, points)
    config = Config.from_json(then["config"])
    make = prepare(model, {"train": train, "val": val, "test": None}, Goal(**then["goal"]), config, task, say)
    with locked(folder):
        made = make(RunDirectory.open(folder))
        _check_same(folder, then, made)
        shop = _Workshop.opened(made)
        each = images if images is not None else _usual_images(made, config)
        for number, size in enumerate(wanted, start=1):
            measurement = _add_point(shop, size, each, f"point {number} of {len(wanted)}: {original / size:.1f}x")
            if measurement.drop_points > USELESS:
                say.line(f"{measurement.drop_points:.1f} points are lost at {original / size:.0f}x: nothing smaller is useful")
                break
    return read_points(folder)


def missing_sizes(found: list[Point], original: float, points: int) -> list[int]:
    """Sizes in bytes, largest first, that the front lacks: `points` of them in equal factors, but for those measured."""
    have = trained_sizes(found)
    largest = original / LARGEST
    smallest = min([largest, *(point.size_bytes for point in have)]) / BEYOND
    grid = [largest * (smallest / largest) ** (i / max(points - 1, 1)) for i in range(points)]
    return [int(size) for size in grid if all(abs(size / point.size_bytes - 1) > SAME_SIZE for point in have)]


def _usual_images(run: Run, config: Config) -> int:
    seen: list[int] = [e["measurement"]["images_seen"] for e in run.directory.events if e["event"] == "measurement"]
    return max([*seen, config.train.batch_size])


def _add_point(shop: _Workshop, size: int, images: int, title: str) -> Measurement:
    run, folder = shop.run, shop.run.directory.path
    start = nearest(read_points(folder), size)
    assert start is not None  # there are points
    candidate = load_candidate(folder, start.candidate)
    shop.go_on_from(candidate)
    number = next_candidate(run.directory)
    with run.say.stage(title, images) as stage:
        policy = shop.moved(candidate, size)
        measurement, made = shop.bench.measure(policy, size, images, f"front-{number}", stage.advance)
    if made is not None:
        save_candidate(run.directory, number, made)
    run.directory.journal(ADDED, candidate=number, origin="front", policy=policy, measurement=measurement, target_bytes=size)
    if measurement.failure is None:
        ratio = run.spec.original_bytes / measurement.size_bytes
        run.say.line(f"{measurement.size_bytes:,} bytes = {ratio:.1f}x, drop {measurement.drop_points:+.2f} points")
    else:
        run.say.warn(f"{title}: rejected: {measurement.failure}")
    return measurement

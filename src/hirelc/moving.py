"""Measured policies at other sizes: what a pick has in place of a search, and what a front is extended with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hirelc.candidates import Bench, Candidate
from hirelc.checkpoints import load_candidate, save_candidate
from hirelc.errors import RunError
from hirelc.journal import SEARCHED
from hirelc.landscape import Landscape
from hirelc.points import Point, nearest, read_points
from hirelc.policy import Policy
from hirelc.replaying import Recorded, Searched
from hirelc.run import Run
from hirelc.search.bounds import Bounds
from hirelc.search.fitting import fit_to_bytes

AS_IT_IS = 0.02  # of the wanted size that a candidate may leave unused without being moved
ORIGIN = "picked"


@dataclass(frozen=True)
class Workshop:
    """Makes candidates of other sizes from those that a run measured."""

    run: Run
    bench: Bench
    landscape: Landscape

    def moved(self, start: Candidate, size_bytes: int) -> Policy:
        """A candidate's policy at another size: precision and channels go where the proxy says they are worth most."""
        choices = self.landscape.choices(start.policy)
        bounds = [Bounds.of(self.run.config.search)] * len(choices)
        return self.landscape.policy(fit_to_bytes(self.landscape, choices, size_bytes, bounds).choices)

    def at_goal(self, start: Candidate) -> Searched:
        """The candidate, moved to the goal's size and calibrated there; journaled as a search's end would be.

        :raises RunError: it cannot be calibrated there
        """
        run, bench = self.run, self.bench
        limit = run.goal.byte_limit(run.spec.original_bytes)
        self.bench.go_on_from(start)
        size = len(start.data) if limit is None else limit
        policy = start.policy
        others = run.goal.max_macs is not None or run.goal.max_latency_ms is not None
        if others or not (1 - AS_IT_IS) * size <= len(start.data) <= size:
            policy = self.moved(start, size)
        recorded = Recorded(run)
        again = recorded.holds(0)
        with run.say.stage("calibrating at the goal's size"):
            measurement, candidate = bench.measure(policy, size, 0, ORIGIN, fidelity="calibrated")
        if candidate is None:
            raise RunError(f"the candidate cannot be moved to the goal: {measurement.failure}")
        save_candidate(run.directory, 0, candidate)
        if again:  # its file was damaged, or the journal ends here
            recorded.check(0, measurement)
        else:
            what: dict[str, Any] = {"policy": policy, "measurement": measurement, "target_bytes": size, "bench": bench.memory}
            run.directory.journal(SEARCHED, cycle=0, origin=ORIGIN, **what)
        digest = candidate.policy.digest
        run.directory.journal_once("pick", policy=digest, measurement=measurement, candidate=0, search_seconds=0.0)
        return Searched(candidate, [measurement], 0.0)


def measured_points(folder: Path) -> list[Point]:
    """:raises RunError: nothing was measured yet"""
    points = read_points(folder)
    if not points:
        raise RunError(f"{folder} holds no measured candidate yet: `hirelc resume {folder}` goes on with its search")
    return points


def closest(run: Run, points: Sequence[Point]) -> Point:
    """Where a pick starts from."""
    limit, max_drop = run.goal.byte_limit(run.spec.original_bytes), run.goal.max_drop
    if limit is None:
        within = [point for point in points if max_drop is None or point.drop_points <= max_drop]
        return min(within or points, key=lambda p: p.size_bytes if within else p.drop_points)
    found = nearest(points, limit)
    assert found is not None  # there are points
    return found


def picked(run: Run, bench: Bench, landscape: Landscape, source: tuple[Path, int | str]) -> Searched:
    """What a pick has in place of a search.

    :param source: as `Run.source` has it
    :raises RunError: the run that it was picked from is no longer there, or its candidate cannot be moved to the goal
    """
    folder, name = source
    try:
        start = load_candidate(folder, name)
    except RunError as error:
        raise RunError(
            f"{run.directory.path} was picked from {folder}, and {error}: restore that run, or remove {run.directory.path} "
            "and pick again"
        ) from error
    return Workshop(run, bench, landscape).at_goal(start)

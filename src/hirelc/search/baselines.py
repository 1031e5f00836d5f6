"""Rivals of the hierarchical search, behind the same interface and for the same number of measurements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hirelc.config import SearchConfig
from hirelc.policy import Choice, Goal, Measurement, Policy
from hirelc.search.bounds import Bounds, alike, random_choices
from hirelc.search.budgets import ByteTarget
from hirelc.search.fitting import excess, fit_to_bytes
from hirelc.search.problem import Problem, Proposal, SearchStrategy
from hirelc.search.surrogate import distortion_of
from hirelc.seeds import stream_seed

_ATTEMPTS = 32


class _Baseline(ABC):
    """What the rivals share: a byte target and the memory of what was proposed."""

    def __init__(self, problem: Problem, goal: Goal, config: SearchConfig) -> None:
        self._problem, self._bounds = problem, Bounds.of(config)
        self._target = ByteTarget(problem, goal)
        self._proposed: set[Policy] = set()

    def propose(self, cycle: int) -> Sequence[Proposal]:
        """Two proposals in cycle 0, then one, as many as the hierarchical search makes; fewer when none is left."""
        proposals = [self._next(cycle, index) for index in range(2 if cycle == 0 else 1)]
        return [proposal for proposal in proposals if proposal is not None]

    @abstractmethod
    def _next(self, cycle: int, index: int) -> Proposal | None:
        """The next proposal of a cycle; None when none is left."""

    def _unseen(self, choices: Sequence[Sequence[Choice]], origin: str) -> Proposal | None:
        decided = tuple(map(tuple, choices))
        policy = self._problem.policy(decided)
        if policy in self._proposed:
            return None
        self._proposed.add(policy)
        record = {"byte_target": self._target.bytes, "size_bytes": self._problem.file_bytes(decided)}
        return Proposal(policy, decided, origin, None, (), record)

    def observe(self, proposal: Proposal, measurement: Measurement) -> Mapping[str, Any]:
        """Moves the byte target of a goal that limits only the drop; learns nothing else."""
        if measurement.failure is None:
            self._target.observe(measurement.size_bytes, measurement.drop_points)
        return {"predicted_drop": None, "measured_drop": measurement.drop_points, "failure": measurement.failure}


class RandomSearch(_Baseline):
    """Uniformly random choices, fitted to the byte limit like every vote is."""

    def __init__(self, problem: Problem, goal: Goal, config: SearchConfig, seed: int) -> None:
        super().__init__(problem, goal, config)
        self._seed = seed

    def _next(self, cycle: int, index: int) -> Proposal | None:
        generator = np.random.default_rng(stream_seed(self._seed, "random", cycle, index))
        bounds = [self._bounds] * len(self._problem.blocks)
        for _ in range(_ATTEMPTS):
            choices = [random_choices(block, self._bounds, generator) for block in self._problem.blocks]
            fit = fit_to_bytes(self._problem, choices, self._target.bytes, bounds)
            proposal = self._unseen(fit.choices, "random")
            if proposal is not None:
                return proposal
        return None


class UniformSearch(_Baseline):
    """Every kernel alike (INT, learned steps): the grid of precision and keep_ratio, least distortion first."""

    def _next(self, cycle: int, index: int) -> Proposal | None:
        ranked = sorted(self._grid(), key=lambda point: point[:2])
        candidates = (self._unseen(choices, "uniform") for _, _, choices in ranked)
        return next((proposal for proposal in candidates if proposal is not None), None)

    def _grid(self) -> list[tuple[float, float, list[tuple[Choice, ...]]]]:
        """(how far over the limits, distortion, choices) of every point."""
        problem, grid = self._problem, []
        for rung in range(self._bounds.lowest, self._bounds.highest + 1):
            for keep in self._bounds.keeps:
                choices = [problem.canonical(b, alike(block, rung, keep)) for b, block in enumerate(problem.blocks)]
                over = excess(problem, choices, self._target.bytes)
                grid.append((over, distortion_of(problem, choices), choices))
        return grid


def make_search(
    problem: Problem,
    goal: Goal,
    config: SearchConfig,
    seed: int,
    progress: Callable[[str, float], None] | None = None,
) -> SearchStrategy:
    """The strategy that `config.strategy` names."""
    if config.strategy == "random":
        return RandomSearch(problem, goal, config, seed)
    if config.strategy == "uniform":
        return UniformSearch(problem, goal, config)
    from hirelc.search.hierarchy import HierarchicalSearch  # loads gymnasium and stable-baselines3

    return HierarchicalSearch(problem, goal, config, seed, progress)

"""Flat reinforcement learning: one PPO agent decides all kernels of the network at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hirelc.config import SearchConfig
from hirelc.policy import Budget, Goal, Strategy
from hirelc.search.agents import Ensemble
from hirelc.search.environments import BlockEnvironment, BlockScene
from hirelc.search.fitting import reference
from hirelc.search.hierarchy import DEFAULT_MAX_DROP
from hirelc.search.problem import Problem, Proposal
from hirelc.search.rewards import BALANCED, HIGH_LEVEL_WEIGHTS, LOW_LEVEL_WEIGHTS
from hirelc.search.rivals.base import LearningRival
from hirelc.search.rivals.whole import Whole

_DRAWS = 8


class FlatSearch(LearningRival):
    """No budgets, no ensemble, no vote: one agent, and as many environment steps as all agents of the method make.

    Reward and observation are those of a low-level agent whose block is the network. It starts from the same
    reference policy, and its drops are predicted by a `Surrogate` of its own.
    """

    ORIGIN = "flat"

    def __init__(
        self,
        problem: Problem,
        goal: Goal,
        config: SearchConfig,
        seed: int,
        progress: Callable[[str, float], None] = lambda message, fraction: None,
    ) -> None:
        super().__init__(problem, goal, config, seed)
        self._progress = progress
        self._whole = Whole(problem)
        self._allowed = goal.max_drop if goal.max_drop is not None else DEFAULT_MAX_DROP
        start = reference(problem, self.target.bytes, self.bounds).choices
        self._incumbent = tuple(choice for decided in start for choice in decided)
        scene = self._scene = BlockScene(self._whole, 0, 1.0, self.bounds)
        self._agent = Ensemble("flat", lambda weights: BlockEnvironment(scene, weights, config.levels), (BALANCED,), seed)
        blocks = len(problem.blocks)
        self._steps = len(LOW_LEVEL_WEIGHTS) * blocks * config.low_level_steps
        self._steps += len(HIGH_LEVEL_WEIGHTS) * config.high_level_steps

    def next(self, cycle: int, index: int) -> Proposal | None:
        """
        :raises RunError: when the reward carries no signal
        """
        learned: list[dict[str, Any]] = []
        if index == 0:
            self._progress("one agent, all kernels", 0.0)
            fraction = min(self.target.fraction(self.problem), 1.0)
            budget = Budget(fraction, 1 - self.bounds.min_keep, self.bounds.lowest, Strategy.AUTO, self._allowed)
            self._scene.grant(budget, self.surrogate, self.surrogate.in_use, self._incumbent)
            learned = [report.to_json() for report in self._agent.train(self._steps)]
        deterministic = index == 0 and cycle >= self.config.exploring
        for attempt in range(index * _DRAWS, (index + 1) * _DRAWS):
            (action,) = self._agent.act(deterministic and attempt == 0, attempt)
            wanted = self._scene.choices(action)
            choices = self.fitted(self._whole.split(wanted))
            predicted = self.predicted(choices)
            proposal = self.unseen(choices, predicted, agents=learned, surrogate=self.surrogate.record())
            if proposal is not None:
                self._incumbent = tuple(choice for decided in choices for choice in decided)
                return proposal
        return None

"""Chance: the least that a search must beat."""

from __future__ import annotations

import numpy as np

from hirelc.config import SearchConfig
from hirelc.policy import Goal
from hirelc.search.bounds import random_choices
from hirelc.search.problem import Problem, Proposal
from hirelc.search.rivals.base import Rival
from hirelc.seeds import stream_seed

_ATTEMPTS = 32


class RandomSearch(Rival):
    """Uniformly random choices, fitted to the byte limit like every vote is."""

    ORIGIN = "random"

    def __init__(self, problem: Problem, goal: Goal, config: SearchConfig, seed: int) -> None:
        super().__init__(problem, goal, config)
        self._seed = seed

    def next(self, cycle: int, index: int) -> Proposal | None:
        generator = np.random.default_rng(stream_seed(self._seed, "random", cycle, index))
        for _ in range(_ATTEMPTS):
            choices = [random_choices(block, self.bounds, generator) for block in self.problem.blocks]
            proposal = self.unseen(self.fitted(choices))
            if proposal is not None:
                return proposal
        return None

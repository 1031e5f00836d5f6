"""What an exact solver makes of the proxy's distortions."""

from __future__ import annotations

from functools import cache

from hirelc.config import SearchConfig
from hirelc.policy import Goal
from hirelc.search.fitting import reference
from hirelc.search.knapsack import Knapsack
from hirelc.search.problem import Problem, Proposal
from hirelc.search.rivals.base import Rival

_ATTEMPTS = 8


class KnapsackSearch(Rival):
    """The solutions of `Knapsack`, best first."""

    ORIGIN = "knapsack"

    def __init__(self, problem: Problem, goal: Goal, config: SearchConfig) -> None:
        super().__init__(problem, goal, config)
        self._knapsack = Knapsack(problem, self.bounds)
        self._reference = cache(lambda byte_limit: reference(problem, byte_limit, self.bounds))

    def next(self, cycle: int, index: int) -> Proposal | None:
        start = self._reference(self.target.bytes)
        if not start.fits:
            return self.unseen(start.choices)
        for _ in range(_ATTEMPTS):
            packed = self._knapsack.next(start, self.target.bytes)
            if packed is None:
                return None
            record = {"variables": packed.variables, "gap": packed.gap, "distortion": packed.distortion}
            proposal = self.unseen(self.fitted(packed.choices), solver=record)
            if proposal is not None:
                return proposal
        return None

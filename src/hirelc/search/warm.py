"""Where the agents begin: the exact solution for the proxy's distortions, and exploration around it."""

from __future__ import annotations

from hirelc.search.bounds import Bounds
from hirelc.search.fitting import Choices, reference
from hirelc.search.knapsack import Knapsack
from hirelc.search.problem import Problem
from hirelc.search.surrogate import distortion_of


class WarmStart:
    """The least distortion that a file's limit allows, solved once for each limit.

    :param exact: whether the integer program is asked; the greedy reference is the start without
    """

    def __init__(self, problem: Problem, bounds: Bounds, exact: bool = True) -> None:
        self._problem, self._bounds = problem, bounds
        self._knapsack = Knapsack(problem, bounds) if exact else None
        self._known: dict[int, tuple[Choices, ...]] = {}

    def at(self, byte_limit: int) -> tuple[Choices, ...]:
        """Canonical choices, one per kernel, per block.

        :param byte_limit: of the whole file
        """
        if byte_limit not in self._known:
            self._known[byte_limit] = self._solved(byte_limit)
        return self._known[byte_limit]

    def _solved(self, byte_limit: int) -> tuple[Choices, ...]:
        greedy = reference(self._problem, byte_limit, self._bounds).choices
        packed = None if self._knapsack is None else self._knapsack.best(byte_limit)
        if packed is None or packed.distortion >= distortion_of(self._problem, greedy):
            return greedy
        return packed.choices

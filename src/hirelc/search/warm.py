"""Where the agents begin: the exact solution for the proxy's distortions, and exploration around it."""

from __future__ import annotations

from functools import cache

from hirelc.search.bounds import Bounds
from hirelc.search.fitting import Choices, Fit, fit_to_bytes, reference
from hirelc.search.knapsack import Knapsack
from hirelc.search.problem import Problem
from hirelc.search.surrogate import distortion_of


class WarmStart:
    """The least distortion that a file's limit allows, solved once for each limit.

    :param on: whether the integer program is asked and the agents begin at what it finds; without, `at` is the greedy
        reference, and they begin anywhere
    """

    def __init__(self, problem: Problem, bounds: Bounds, on: bool) -> None:
        self._problem, self._bounds, self.on = problem, bounds, on
        self._knapsack = Knapsack(problem, bounds) if on else None
        self._referred = cache(lambda byte_limit: reference(problem, byte_limit, bounds))
        self._known = cache(self._solved)

    def reference(self, byte_limit: int) -> Fit:
        """`fitting.reference` at a limit of the whole file."""
        return self._referred(byte_limit)

    def at(self, byte_limit: int) -> tuple[Choices, ...]:
        """Canonical choices, one per kernel, per block.

        :param byte_limit: of the whole file
        """
        return self._known(byte_limit)

    def _solved(self, byte_limit: int) -> tuple[Choices, ...]:
        greedy = self.reference(byte_limit)
        packed = None if self._knapsack is None else self._knapsack.best(greedy, byte_limit)
        if packed is None or packed.distortion >= distortion_of(self._problem, greedy.choices):
            return greedy.choices
        # the program counts bytes with a margin: what it left over is spent
        return fit_to_bytes(self._problem, packed.choices, byte_limit, [self._bounds] * len(packed.choices)).choices

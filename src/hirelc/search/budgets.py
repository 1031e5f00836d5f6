"""From the user's goal to what each block may spend: size levels, sensitivity shift, balance.

Budgets are balanced: whatever the agents ask for, the weight-weighted mean of what is granted equals the goal,
so that what one block saves another may spend.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hirelc.policy import Budget, Goal, Strategy
from hirelc.precision import lowest_rung
from hirelc.search.bounds import Bounds, blocks_bytes, uniform_fraction
from hirelc.search.problem import Problem

Floats = NDArray[np.float64]

# Size levels in units of what the warm start gives a block, ascending towards safety. The paper's fixed .15 to .35 have about
# this spread around their mean, and could not reach a goal beyond 6.7x.
SIZE_LEVELS = (0.6, 0.8, 1.0, 1.2, 1.4)
SENSITIVE, INSENSITIVE = 0.7, 0.3
STRATEGIES = tuple(Strategy)
# A pruning budget keeps at least this precision (four bits): channels go instead.
PRUNING_PRECISION = lowest_rung(4)


def shifted(levels: Sequence[int], sensitivities: Sequence[float]) -> list[int]:
    """Sensitive blocks one level towards safety, insensitive ones one towards size."""
    top = len(SIZE_LEVELS) - 1
    return [
        min(max(level + (sensitivity > SENSITIVE) - (sensitivity < INSENSITIVE), 0), top)
        for level, sensitivity in zip(levels, sensitivities, strict=True)
    ]


def balance(raw: Floats, shares: Floats, goal: float, floors: Floats, ceilings: Floats) -> Floats:
    """Scales fractions by one factor, clipped to what each block can be, so that their mean is the goal.

    Solves `sum(shares * clip(factor * raw, floors, ceilings)) = goal`, piecewise linear and increasing in the
    factor, exactly at its breakpoints. A goal out of reach yields the floors or the ceilings. All arrays: (blocks,).
    """
    factors = np.sort(np.concatenate([floors / raw, ceilings / raw]))
    means = np.clip(factors[:, None] * raw, floors, ceilings) @ shares
    factor = np.interp(goal, means, factors)
    balanced: Floats = np.clip(factor * raw, floors, ceilings)
    return balanced


class Treasury:
    """Turns the high level's wishes into budgets for one goal fraction.

    :param goal_fraction: bytes that all blocks may have / their bytes in fp32
    :param max_drop: drop in points that each budget allows
    :param around: the size fractions that the middle level stands for, (blocks,): those of the warm start. The goal's
        fraction for every block by default
    """

    def __init__(
        self, problem: Problem, bounds: Bounds, goal_fraction: float, max_drop: float, around: Floats | None = None
    ) -> None:
        blocks = range(len(problem.blocks))
        self.goal_fraction, self.max_drop, self._bounds = goal_fraction, max_drop, bounds
        self.shares = np.array([block.share for block in problem.blocks]) / sum(block.share for block in problem.blocks)
        self.sensitivities = np.array([block.sensitivity for block in problem.blocks])
        self.around = np.full(len(self.shares), goal_fraction) if around is None else around
        self.ceilings = np.array([uniform_fraction(problem, block, bounds.highest) for block in blocks])
        self._pruned_precision = min(max(bounds.lowest, PRUNING_PRECISION), bounds.highest)
        self._slimmest, self._pruned, self._unpruned = (
            np.array([uniform_fraction(problem, block, rung, keep) for block in blocks])
            for rung, keep in (
                (bounds.lowest, bounds.min_keep),
                (self._pruned_precision, bounds.min_keep),
                (bounds.lowest, 1.0),
            )
        )

    @property
    def floors(self) -> Floats:
        """The smallest size fraction of each block under any strategy, (blocks,)."""
        floors: Floats = np.minimum(self._slimmest, self._unpruned)
        return floors

    def wishes(self, levels: Sequence[int]) -> Floats:
        """Size fractions asked for, after the sensitivity shift and before the balance, (blocks,)."""
        multipliers = np.array(SIZE_LEVELS)[shifted(levels, self.sensitivities.tolist())]
        wished: Floats = self.around * multipliers
        return wished

    def granted(self, wishes: Floats, strategies: Sequence[Strategy]) -> tuple[Floats, list[Strategy]]:
        """Balanced size fractions, (blocks,), and strategies.

        A budget must be one that can be met. Where bits alone cannot make the blocks as small as the goal needs, all
        `quantization` strategies give way to `auto`; where channels alone cannot, a block's `pruning` does.
        """
        strategies = list(strategies)
        floors = np.where([s is Strategy.QUANTIZATION for s in strategies], self._unpruned, self.floors)
        if float(self.shares @ floors) > self.goal_fraction:
            strategies = [Strategy.AUTO if s is Strategy.QUANTIZATION else s for s in strategies]
            floors = self.floors
        ceilings = np.maximum(self.ceilings, floors)
        fractions = balance(wishes, self.shares, self.goal_fraction, floors, ceilings)
        met = [s is not Strategy.PRUNING or least <= f for s, least, f in zip(strategies, self._pruned, fractions, strict=True)]
        return fractions, [s if fine else Strategy.AUTO for s, fine in zip(strategies, met, strict=True)]

    def budgets(self, levels: Sequence[int], strategies: Sequence[Strategy]) -> tuple[Budget, ...]:
        """One budget per block for a size level and a strategy per block."""
        return self._budgets(self.wishes(levels), strategies)

    def equal_budgets(self) -> tuple[Budget, ...]:
        """The goal's fraction for every block, to be reached as it likes: what there is without a high level."""
        return self._budgets(np.full(len(self.shares), self.goal_fraction), [Strategy.AUTO] * len(self.shares))

    def _budgets(self, wishes: Floats, strategies: Sequence[Strategy]) -> tuple[Budget, ...]:
        granted, effective = self.granted(wishes, strategies)
        return tuple(
            self._budget(block, min(float(fraction), 1.0), strategy)
            for block, (fraction, strategy) in enumerate(zip(granted, effective, strict=True))
        )

    def _budget(self, block: int, fraction: float, strategy: Strategy) -> Budget:
        max_pruning, precision = 1 - self._bounds.min_keep, self._bounds.lowest
        if strategy is Strategy.QUANTIZATION and self._bounds.lowest < self._bounds.highest:
            max_pruning = 0.0  # else there would be nothing to decide
        elif strategy is Strategy.PRUNING:
            precision = self._pruned_precision
        return Budget(fraction, max_pruning, precision, strategy, self.max_drop)


def default_bytes(original_bytes: int) -> int:
    """Length of the file where the goal says nothing that it could follow from."""
    return round(original_bytes / ByteTarget.START_RATIO)


class ByteTarget:
    """The file length that the search aims at.

    It is the goal's byte limit where there is one. A goal that limits the drop instead has its target searched by
    bisection in log size: a start at 1/8, half as large again after an over-drop, smaller by that factor after
    head-room, the geometric mean once both are known. A goal that limits neither, only MACs or latency, stays at 1/8.
    """

    START_RATIO, STEP = 8.0, 1.5

    def __init__(self, problem: Problem, goal: Goal) -> None:
        self._limit = goal.byte_limit(problem.original_bytes)
        self._max_drop = goal.max_drop
        self._start = problem.original_bytes / self.START_RATIO
        self._passed: list[int] = []
        self._failed: list[int] = []
        if self._limit is None and self._max_drop is None:
            self._limit = default_bytes(problem.original_bytes)

    @property
    def bytes(self) -> int:
        """What the next policy's file may be long."""
        if self._limit is not None:
            return self._limit
        if not self._passed:
            return round(max(self._failed) * self.STEP if self._failed else self._start)
        smallest = min(self._passed)
        below = [size for size in self._failed if size < smallest]
        return round((smallest * max(below)) ** 0.5 if below else smallest / self.STEP)

    def observe(self, size_bytes: int, drop_points: float) -> None:
        """A rigorous measurement moves the target of a goal without byte limit."""
        if self._max_drop is not None:
            (self._passed if drop_points <= self._max_drop else self._failed).append(size_bytes)

    def fraction(self, problem: Problem) -> float:
        """The target as a size fraction of the blocks, above 0 even when the fixed bytes alone exceed it."""
        return max((self.bytes - problem.fixed_bytes) / blocks_bytes(problem), 1e-4)

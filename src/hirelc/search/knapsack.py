"""Exact knapsack: an integer program over additive distortions, solved by HiGHS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds as VariableBounds
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import csr_array

from hirelc.policy import Choice
from hirelc.search.bounds import Bounds
from hirelc.search.fitting import Choices as Kernels
from hirelc.search.fitting import Fit
from hirelc.search.menu import Menu, Points, Table, menu, points
from hirelc.search.problem import Problem
from hirelc.search.surrogate import distortion_of

GAP, MOST_NODES = 1e-3, 20_000
DIFFERENT = 10  # each further solution decides a tenth of the kernels differently from every earlier one
_ATTEMPTS = 8
_HOPELESS = 4.0  # times the greedy distortion: a single choice that costs more is in no good solution
_COST_SCALE = 100.0

Formats = list[Kernels]  # of each table


@dataclass(frozen=True)
class _Program:
    """minimise cost @ x, lower <= rows @ x <= upper, x binary. Rows hold (variable, coefficient) pairs."""

    cost: NDArray[np.float64]
    rows: list[list[tuple[int, float]]]
    lower: list[float]
    upper: list[float]


@dataclass(frozen=True)
class Packed:
    """What a solution comes to.

    :param choices: canonical, within the limits, one choice per kernel, per block
    :param variables: binary ones of the program; :param gap: part of the distortion that a better solution may save
    """

    choices: tuple[Kernels, ...]
    variables: int
    gap: float
    distortion: float


class Knapsack:
    """The least sum of the kernels' distortions within the limits, and then the best that differ from all earlier.

    Kernels that share a keep_ratio, and those whose inputs it slims, are decided together, so bytes are as exact as
    the cost model. Optimal up to a gap of 0.1 %, or what 20,000 nodes of branch and bound have found.
    """

    def __init__(self, problem: Problem, bounds: Bounds) -> None:
        self.problem, self._bounds = problem, bounds
        self._taken: list[Formats] = []

    @cached_property
    def _menu(self) -> Menu:
        return menu(self.problem, self._bounds)

    def best(self, start: Fit, byte_limit: int) -> Packed | None:
        """The best solution; None where even the smallest choices exceed a limit.

        :param start: the reference at this limit: a solution that is known bounds what is looked at
        :param byte_limit: of the whole file
        """
        found = self._solved(start, byte_limit, [])
        return None if found is None else found[0]

    def next(self, start: Fit, byte_limit: int) -> Packed | None:
        """The best solution that differs from all earlier ones; None where there is none."""
        found = self._solved(start, byte_limit, self._taken)
        if found is None:
            return None
        self._taken.append(found[1])
        return found[0]

    def _solved(self, start: Fit, byte_limit: int, taken: Sequence[Formats]) -> tuple[Packed, Formats] | None:
        """A solution and its formats, table by table.

        :param taken: what it has to differ from
        """
        if not start.fits:
            return None
        worst = max(distortion_of(self.problem, start.choices), 1e-12)
        # the distortion of one solution that is known: a point far above it is in no good one
        fronts = [points(table, _HOPELESS * worst, bool(self.problem.limits)) for table in self._menu.tables]
        # blocks are rounded to whole bytes each: a byte of margin for each kernel saves a second solution
        limit = byte_limit - sum(len(table.kernels) for table in self._menu.tables)
        for _ in range(_ATTEMPTS):
            program = self._program(fronts, limit, worst, taken)
            chosen, gap = solve(program)
            if chosen is None:
                return None
            decided = self._decided(fronts, chosen)
            choices = self._choices(decided)
            over = self.problem.file_bytes(choices) - byte_limit
            if over <= 0:
                packed = Packed(choices, len(program.cost), gap, distortion_of(self.problem, choices))
                return packed, [formats for _, formats in decided]
            limit -= over
        return None

    def _program(self, fronts: Sequence[Points], limit: int, worst: float, taken: Sequence[Formats]) -> _Program:
        starts = np.cumsum([0, *(len(front.size_bytes) for front in fronts)]).tolist()
        one_each = [[(variable, 1.0) for variable in range(a, b)] for a, b in pairwise(starts)]
        size = np.concatenate([front.size_bytes for front in fronts]).astype(float).tolist()
        spare = [(size, float(limit - self._menu.size_bytes)), *self._other_limits(fronts)]
        kernels = sum(len(table.kernels) for table in self._menu.tables)
        cuts = [
            [(variable, float(same)) for variable, same in enumerate(self._same(fronts, earlier)) if same] for earlier in taken
        ]
        alike = float(kernels - max(1, kernels // DIFFERENT))
        return _Program(
            np.concatenate([front.distortion for front in fronts]) * (_COST_SCALE / worst),
            [*one_each, *([*enumerate(amounts)] for amounts, _ in spare), *cuts],
            [*[1.0] * len(fronts), *[-np.inf] * (len(spare) + len(cuts))],
            [*[1.0] * len(fronts), *(allowed for _, allowed in spare), *[alike] * len(cuts)],
        )

    def _other_limits(self, fronts: Sequence[Points]) -> Iterator[tuple[list[float], float]]:
        """(what each point adds, what may be added) of MACs and latency, where they are limited."""
        courses = [
            table.courses[course]
            for table, front in zip(self._menu.tables, fronts, strict=True)
            for course in front.picks[:, 0].tolist()
        ]
        limits, best = self.problem.limits, self._menu
        if limits.macs is not None:
            yield [float(course.macs) for course in courses], limits.macs - best.macs
        if limits.latency_ms is not None and best.latency_ms is not None:
            yield [course.latency_ms for course in courses], limits.latency_ms - best.latency_ms

    def _formats(self, table: Table, pick: Sequence[int]) -> tuple[Choice, ...]:
        """What a point decides for the kernels of its table."""
        course = table.courses[pick[0]]
        decided = [options[number].choice for options, number in zip(course.options, pick[1:], strict=True)]
        keeps = {kernel: keep for group, keep in course.keeps for kernel in group}
        return tuple(
            replace(choice, keep_ratio=keeps.get(kernel, 1.0)) for kernel, choice in zip(table.kernels, decided, strict=True)
        )

    def _same(self, fronts: Sequence[Points], taken: Formats) -> Iterator[int]:
        """For each point, how many kernels it decides as an earlier solution did."""
        for table, front, earlier in zip(self._menu.tables, fronts, taken, strict=True):
            for pick in front.picks.tolist():
                yield sum(a == b for a, b in zip(self._formats(table, pick), earlier, strict=True))

    def _decided(self, fronts: Sequence[Points], chosen: Sequence[int]) -> list[tuple[Table, tuple[Choice, ...]]]:
        picks = np.concatenate([np.arange(len(front.size_bytes)) for front in fronts])[list(chosen)].tolist()
        return [
            (table, self._formats(table, front.picks[number].tolist()))
            for table, front, number in zip(self._menu.tables, fronts, picks, strict=True)
        ]

    def _choices(self, taken: Sequence[tuple[Table, tuple[Choice, ...]]]) -> tuple[Kernels, ...]:
        decided: list[list[Choice]] = [[Choice()] * len(block.kernels) for block in self.problem.blocks]
        for table, formats in taken:
            for kernel, choice in zip(table.kernels, formats, strict=True):
                decided[table.block][kernel] = choice
        return tuple(self.problem.canonical(block, tuple(choices)) for block, choices in enumerate(decided))


def solve(program: _Program) -> tuple[list[int] | None, float]:
    """The variables that are 1, in order, and the gap that is left; None where nothing is feasible.

    No limit of time, so that every machine finds the same.
    """
    count = len(program.cost)
    starts = np.cumsum([0, *map(len, program.rows)])
    variables = np.array([variable for row in program.rows for variable, _ in row])
    coefficients = np.array([coefficient for row in program.rows for _, coefficient in row])
    rows = csr_array((coefficients, variables, starts), shape=(len(program.rows), count))
    found = milp(
        program.cost,
        integrality=np.ones(count),
        bounds=VariableBounds(0, 1),
        constraints=LinearConstraint(rows, program.lower, program.upper),
        options={"mip_rel_gap": GAP, "node_limit": MOST_NODES},
    )
    if found.x is None:
        return None, float("inf")
    return np.flatnonzero(found.x > 0.5).tolist(), float(found.mip_gap)

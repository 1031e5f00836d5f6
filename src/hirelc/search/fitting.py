"""Choices that meet a byte limit exactly: deterministic greedy moves of one kernel's precision or keep_ratio.

A move's price is the distortion it adds per byte it saves (or, going up, the distortion it removes per byte it
costs). While the file is too long the cheapest move down is taken; then spare bytes are spent on the moves up
that remove most. Number type and granularity are never touched: those are the agents' to decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hirelc.policy import Choice
from hirelc.precision import precision_of, with_precision
from hirelc.search.bounds import Bounds, alike, size_fraction
from hirelc.search.problem import Problem

Choices = tuple[Choice, ...]


@dataclass(frozen=True)
class Fit:
    """Choices fitted to a limit.

    :param choices: one choice per kernel, per block
    :param size_bytes: of the whole file, or of the block when one block was fitted
    :param fits: False when even the smallest choices within bounds exceed the limit; these are the choices then
    :param changed: how many kernels differ from the choices given
    """

    choices: tuple[Choices, ...]
    size_bytes: int
    fits: bool
    changed: int


@dataclass(frozen=True)
class _Move:
    """One kernel decided anew; ordered by price, then by place, so that ties are decided alike in every run."""

    price: float
    block: int
    kernel: int
    choices: Choices
    grows_by: int

    def __lt__(self, other: _Move) -> bool:
        return (self.price, self.block, self.kernel) < (other.price, other.block, other.kernel)


def _neighbours(problem: Problem, block: int, choices: Choices, bounds: Bounds, up: bool) -> Iterable[tuple[int, Choices]]:
    """Each kernel one rung up or down, and to the next keep level, that take effect."""
    for index, (kernel, choice) in enumerate(zip(problem.blocks[block].kernels, choices, strict=True)):
        rung = precision_of(choice)
        for other in range(rung + 1, bounds.highest + 1) if up else range(rung - 1, bounds.lowest - 1, -1):
            moved = with_precision(choice, other)
            if moved != choice:
                yield index, problem.canonical(block, _replaced(choices, index, moved))
                break
        if not kernel.prunable:
            continue
        for keep in bounds.keeps if up else reversed(bounds.keeps):
            if keep <= choice.keep_ratio if up else keep >= choice.keep_ratio:
                continue
            snapped = problem.canonical(block, _replaced(choices, index, replace(choice, keep_ratio=keep)))
            if snapped != choices:
                yield index, snapped
                break


def _replaced(choices: Choices, index: int, choice: Choice) -> Choices:
    return (*choices[:index], choice, *choices[index + 1 :])


def _moves(problem: Problem, block: int, choices: Choices, bounds: Bounds, up: bool) -> list[_Move]:
    """The moves that truly shrink the block, or (up) grow it to less distortion."""
    size, distortion = problem.block_bytes(block, choices), problem.block_distortion(block, choices)
    moves = []
    for kernel, after in _neighbours(problem, block, choices, bounds, up):
        grows_by = problem.block_bytes(block, after) - size
        adds = problem.block_distortion(block, after) - distortion
        if (grows_by > 0 and adds < 0) if up else grows_by < 0:
            moves.append(_Move(adds / abs(grows_by), block, kernel, after, grows_by))
    return moves


def _fit(
    problem: Problem,
    start: Mapping[int, Choices],
    bounds: Mapping[int, Bounds],
    size_of: Callable[[Mapping[int, Choices]], int],
    byte_limit: int,
) -> tuple[dict[int, Choices], bool]:
    """Moves down until `size_of` is within the limit, then up while it stays so."""
    state = dict(start)
    moves = {block: _moves(problem, block, state[block], bounds[block], up=False) for block in state}
    while size_of(state) > byte_limit:
        cheapest = min((move for options in moves.values() for move in options), default=None)
        if cheapest is None:
            return state, False
        block = cheapest.block
        state[block] = cheapest.choices
        moves[block] = _moves(problem, block, state[block], bounds[block], up=False)
    moves = {block: _moves(problem, block, state[block], bounds[block], up=True) for block in state}
    while True:
        spare = byte_limit - size_of(state)
        affordable = sorted(move for options in moves.values() for move in options if move.grows_by <= spare)
        taken = next((move for move in affordable if size_of({**state, move.block: move.choices}) <= byte_limit), None)
        if taken is None:
            return state, True
        block = taken.block
        state[block] = taken.choices
        moves[block] = _moves(problem, block, state[block], bounds[block], up=True)


def _changed(before: Sequence[Sequence[Choice]], after: Sequence[Sequence[Choice]]) -> int:
    return sum(a != b for old, new in zip(before, after, strict=True) for a, b in zip(old, new, strict=True))


def fit_to_bytes(problem: Problem, choices: Sequence[Sequence[Choice]], byte_limit: int, bounds: Sequence[Bounds]) -> Fit:
    """The whole network's choices, moved to the least distortion that the file's length allows.

    :param bounds: limits per block
    """
    start = {block: problem.canonical(block, tuple(decided)) for block, decided in enumerate(choices)}
    state, fits = _fit(problem, start, dict(enumerate(bounds)), lambda now: problem.file_bytes(tuple(now.values())), byte_limit)
    fitted = tuple(state.values())
    return Fit(fitted, problem.file_bytes(fitted), fits, _changed(list(start.values()), fitted))


def fit_block(problem: Problem, block: int, choices: Sequence[Choice], byte_limit: int, bounds: Bounds) -> Fit:
    """One block's choices, moved to the least distortion that its grant of payload bytes allows."""
    start = problem.canonical(block, tuple(choices))
    state, fits = _fit(problem, {block: start}, {block: bounds}, lambda now: problem.block_bytes(block, now[block]), byte_limit)
    return Fit((state[block],), problem.block_bytes(block, state[block]), fits, _changed([start], [state[block]]))


def reference(problem: Problem, byte_limit: int, bounds: Bounds) -> Fit:
    """The policy that everything is compared with: the highest uniform precision that fits, then fitted greedily.

    INT, learned steps, nothing pruned unless the limit cannot be met otherwise.
    """
    for rung in range(bounds.highest, bounds.lowest - 1, -1):
        start = [problem.canonical(index, alike(block, rung)) for index, block in enumerate(problem.blocks)]
        if problem.file_bytes(start) <= byte_limit:
            break
    return fit_to_bytes(problem, start, byte_limit, [bounds] * len(start))


@dataclass(frozen=True)
class RateCurve:
    """A block's distortion as a function of its size, along the greedy path from largest to smallest.

    :param log_fractions: ascending, (points,); :param log_distortions: non-increasing, (points,)
    """

    log_fractions: NDArray[np.float64]
    log_distortions: NDArray[np.float64]

    def reaches(self, fraction: float) -> bool:
        """Whether the block can be this small."""
        return bool(np.log(fraction) >= self.log_fractions[0])

    def distortion(self, fraction: float) -> float:
        """Interpolated in log-log; constant beyond the ends."""
        return float(np.exp(np.interp(np.log(fraction), self.log_fractions, self.log_distortions)))


def rate_curve(problem: Problem, block: int, bounds: Bounds) -> RateCurve:
    """Follows the cheapest moves down from the largest choices of a block (INT, learned steps)."""
    now = problem.canonical(block, alike(problem.blocks[block], bounds.highest))
    path = [now]
    while moves := _moves(problem, block, now, bounds, up=False):
        now = min(moves).choices
        path.append(now)
    fractions = [size_fraction(problem, block, point) for point in reversed(path)]
    distortions = [max(problem.block_distortion(block, point), 1e-12) for point in reversed(path)]
    return RateCurve(np.log(fractions), np.minimum.accumulate(np.log(distortions)))

"""Choices that meet every limit exactly: deterministic greedy moves of one kernel's precision or keep_ratio.

While any limit is exceeded, the cheapest move down is taken: the least distortion per part of the exceeded limits that
it gives back. Then what is spare is spent on the moves up that remove most distortion per part of the limits. Kernels
that lose the same channels move together. Number type and granularity are never touched: those are the agents' to decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hirelc.errors import PolicyError
from hirelc.policy import Choice
from hirelc.precision import precision_of, with_precision
from hirelc.search.bounds import Bounds, alike, size_fraction
from hirelc.search.problem import Problem

Choices = tuple[Choice, ...]
State = Mapping[int, Choices]
Amounts = tuple[float, ...]  # of each limited resource
_OfNetwork = Callable[[Sequence[Sequence[Choice]]], float]
_OfBlock = Callable[[int, Sequence[Choice]], float]


@dataclass(frozen=True)
class Fit:
    """Choices fitted to the limits.

    :param choices: one choice per kernel, per block
    :param size_bytes: of the whole file, or of the block when one block was fitted
    :param fits: False when even the smallest choices within bounds exceed a limit; the closest choices then
    :param changed: how many kernels differ from the choices given
    :param macs: of the whole network, or of the block; :param latency_ms: likewise, None where it is not known
    """

    choices: tuple[Choices, ...]
    size_bytes: int
    fits: bool
    changed: int
    macs: int
    latency_ms: float | None


@dataclass(frozen=True)
class Move:
    """One kernel, or all that share its channels, decided anew.

    :param adds: distortion; :param grows: what the block takes more of each resource, negative where it takes less
    """

    block: int
    kernel: int
    choices: Choices
    adds: float
    grows: Amounts


@dataclass(frozen=True)
class Ledger:
    """What is limited, and how much of it choices take.

    :param limits: of each resource, above 0; :param used: by all that is fitted; :param by_block: by one block's kernels
    """

    limits: Amounts
    used: Callable[[State], Amounts]
    by_block: Callable[[int, Choices], Amounts]

    def exceeded(self, used: Amounts) -> list[int]:
        return [index for index, (amount, limit) in enumerate(zip(used, self.limits, strict=True)) if amount > limit]

    def excess(self, used: Amounts) -> float:
        return sum(max(amount / limit - 1, 0.0) for amount, limit in zip(used, self.limits, strict=True))

    def relief(self, move: Move, exceeded: Sequence[int]) -> float:
        """Which part of the exceeded limits a move gives back."""
        return -sum(move.grows[index] / self.limits[index] for index in exceeded)

    def price_up(self, move: Move) -> float:
        return move.adds / sum(max(amount, 0.0) / limit for amount, limit in zip(move.grows, self.limits, strict=True))

    def affords(self, move: Move, used: Amounts) -> bool:
        return all(u + g <= limit for u, g, limit in zip(used, move.grows, self.limits, strict=True))


def _neighbours(problem: Problem, block: int, choices: Choices, bounds: Bounds, up: bool) -> Iterable[tuple[int, Choices]]:
    """Each kernel one rung up or down, and (together with those that share its channels) to the next keep level."""
    kernels = problem.blocks[block].kernels
    seen: set[int] = set()
    for index, (kernel, choice) in enumerate(zip(kernels, choices, strict=True)):
        rung = precision_of(choice)
        for other in range(rung + 1, bounds.highest + 1) if up else range(rung - 1, bounds.lowest - 1, -1):
            moved = with_precision(choice, other)
            if moved != choice:
                yield index, problem.canonical(block, (*choices[:index], moved, *choices[index + 1 :]))
                break
        if not kernel.prunable or kernel.coupling in seen:
            continue
        group = {index}
        if kernel.coupling is not None:
            seen.add(kernel.coupling)
            group = {other for other, k in enumerate(kernels) if k.coupling == kernel.coupling}
        for keep in bounds.keeps if up else reversed(bounds.keeps):
            if keep <= choice.keep_ratio if up else keep >= choice.keep_ratio:
                continue
            wanted = tuple(replace(c, keep_ratio=keep) if i in group else c for i, c in enumerate(choices))
            snapped = problem.canonical(block, wanted)
            if snapped != choices:
                yield index, snapped
                break


def _moves(problem: Problem, ledger: Ledger, block: int, choices: Choices, bounds: Bounds, up: bool) -> list[Move]:
    """The moves that truly take less of something, or (up) take more and distort less."""
    used, distortion = ledger.by_block(block, choices), problem.block_distortion(block, choices)
    moves = []
    for kernel, after in _neighbours(problem, block, choices, bounds, up):
        grows = tuple(b - a for a, b in zip(used, ledger.by_block(block, after), strict=True))
        adds = problem.block_distortion(block, after) - distortion
        if (max(grows) > 0 and adds < 0) if up else min(grows) < 0:
            moves.append(Move(block, kernel, after, adds, grows))
    return moves


def moves_of(problem: Problem, ledger: Ledger, state: State, bounds: Bounds, up: bool) -> list[Move]:
    """All moves of all blocks that take less of something, or (up) take more and distort less."""
    return [move for block, choices in state.items() for move in _moves(problem, ledger, block, choices, bounds, up)]


def _smallest(problem: Problem, block: int, choices: Choices, bounds: Bounds) -> Choices:
    """The fewest channels and the lowest precision of the formats given."""
    kernels = problem.blocks[block].kernels
    least = (
        with_precision(replace(choice, keep_ratio=bounds.keeps[0] if kernel.prunable else 1.0), bounds.lowest)
        for kernel, choice in zip(kernels, choices, strict=True)
    )
    return problem.canonical(block, tuple(least))


def _fit(problem: Problem, start: State, bounds: Mapping[int, Bounds], ledger: Ledger) -> tuple[dict[int, Choices], bool]:
    """Moves down until all limits hold, then up while they do.

    Where moves one by one lead nowhere, the smallest choices are the start. A limit that even those exceed becomes what
    was reached, so that the other limits are still used up.
    """
    state = _down(problem, dict(start), bounds, ledger)
    used = ledger.used(state)
    if ledger.exceeded(used):
        smallest = {block: _smallest(problem, block, choices, bounds[block]) for block, choices in state.items()}
        least = ledger.used(smallest)
        if ledger.excess(least) < ledger.excess(used):
            state, used = smallest, least
    reached = tuple(max(amount, limit) for amount, limit in zip(used, ledger.limits, strict=True))
    fits = reached == ledger.limits
    return _up(problem, state, bounds, ledger if fits else replace(ledger, limits=reached)), fits


def _down(problem: Problem, state: dict[int, Choices], bounds: Mapping[int, Bounds], ledger: Ledger) -> dict[int, Choices]:
    moves = {block: _moves(problem, ledger, block, state[block], bounds[block], up=False) for block in state}
    while exceeded := ledger.exceeded(ledger.used(state)):
        helpful = [(ledger.relief(move, exceeded), move) for options in moves.values() for move in options]
        priced = ((move.adds / relief, move.block, move.kernel, move) for relief, move in helpful if relief > 0)
        cheapest = min(priced, key=lambda option: option[:3], default=None)
        if cheapest is None:
            break
        block = cheapest[3].block
        state[block] = cheapest[3].choices
        moves[block] = _moves(problem, ledger, block, state[block], bounds[block], up=False)
    return state


def _up(problem: Problem, state: dict[int, Choices], bounds: Mapping[int, Bounds], ledger: Ledger) -> dict[int, Choices]:
    moves = {block: _moves(problem, ledger, block, state[block], bounds[block], up=True) for block in state}
    while True:
        used = ledger.used(state)
        affordable = [move for options in moves.values() for move in options if ledger.affords(move, used)]
        affordable.sort(key=lambda move: (ledger.price_up(move), move.block, move.kernel))
        taken = next((m for m in affordable if not ledger.exceeded(ledger.used({**state, m.block: m.choices}))), None)
        if taken is None:
            return state
        state[taken.block] = taken.choices
        moves[taken.block] = _moves(problem, ledger, taken.block, taken.choices, bounds[taken.block], up=True)


def _changed(before: Sequence[Sequence[Choice]], after: Sequence[Sequence[Choice]]) -> int:
    return sum(a != b for old, new in zip(before, after, strict=True) for a, b in zip(old, new, strict=True))


def whole_ledger(problem: Problem, byte_limit: int) -> Ledger:
    """The file's length, and what else the goal limits, by the whole network."""
    allowed = problem.limits

    def latency_ms(choices: Sequence[Sequence[Choice]]) -> float:
        found = problem.latency_ms(choices)
        if found is None:
            raise PolicyError("the goal limits the latency, which was not measured")
        return found

    resources: list[tuple[float | None, _OfNetwork, _OfBlock]] = [
        (max(float(byte_limit), 1.0), problem.file_bytes, problem.block_bytes),
        (allowed.macs, problem.macs, problem.block_macs),
        (allowed.latency_ms, latency_ms, problem.block_latency),
    ]
    limited = [(limit, network, block) for limit, network, block in resources if limit is not None]
    return Ledger(
        tuple(limit for limit, _, _ in limited),
        lambda state: tuple(network(tuple(state.values())) for _, network, _ in limited),
        lambda index, choices: tuple(block(index, choices) for _, _, block in limited),
    )


def excess(problem: Problem, choices: Sequence[Sequence[Choice]], byte_limit: int) -> float:
    """How far canonical choices exceed all limits together, in parts of the limits; 0 where all hold."""
    ledger = whole_ledger(problem, byte_limit)
    return ledger.excess(ledger.used(dict(enumerate(map(tuple, choices)))))


def fit_to_bytes(problem: Problem, choices: Sequence[Sequence[Choice]], byte_limit: int, bounds: Sequence[Bounds]) -> Fit:
    """The whole network's choices, moved to the least distortion that the file's length and the problem's limits allow.

    :param bounds: limits per block
    """
    start = {block: problem.canonical(block, tuple(decided)) for block, decided in enumerate(choices)}
    state, fits = _fit(problem, start, dict(enumerate(bounds)), whole_ledger(problem, byte_limit))
    fitted = tuple(state.values())
    changed = _changed(list(start.values()), fitted)
    return Fit(fitted, problem.file_bytes(fitted), fits, changed, problem.macs(fitted), problem.latency_ms(fitted))


def _one_block(problem: Problem, block: int, byte_limit: int) -> Ledger:
    return Ledger(
        (max(float(byte_limit), 1.0),),
        lambda state: (problem.block_bytes(block, state[block]),),
        lambda index, choices: (problem.block_bytes(index, choices),),
    )


def fit_block(problem: Problem, block: int, choices: Sequence[Choice], byte_limit: int, bounds: Bounds) -> Fit:
    """One block's choices, moved to the least distortion that its grant of payload bytes allows."""
    start = problem.canonical(block, tuple(choices))
    state, fits = _fit(problem, {block: start}, {block: bounds}, _one_block(problem, block, byte_limit))
    found = state[block]
    changed, macs = _changed([start], [found]), problem.block_macs(block, found)
    return Fit((found,), problem.block_bytes(block, found), fits, changed, macs, problem.block_latency(block, found))


def reference(problem: Problem, byte_limit: int, bounds: Bounds) -> Fit:
    """The policy that everything is compared with: the highest uniform precision that fits, then fitted greedily.

    INT, learned steps, nothing pruned unless the limits cannot be met otherwise.
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
    path, ledger = [now], _one_block(problem, block, 1)
    while moves := _moves(problem, ledger, block, now, bounds, up=False):
        now = min(moves, key=lambda move: (move.adds / ledger.relief(move, (0,)), move.block, move.kernel)).choices
        path.append(now)
    fractions = [size_fraction(problem, block, point) for point in reversed(path)]
    distortions = [max(problem.block_distortion(block, point), 1e-12) for point in reversed(path)]
    return RateCurve(np.log(fractions), np.minimum.accumulate(np.log(distortions)))

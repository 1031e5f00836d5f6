"""The neighbours of a policy at equal bytes: what one kernel gives, another takes."""

from __future__ import annotations

from collections.abc import Sequence

from hirelc.policy import Choice, Policy
from hirelc.search.bounds import Bounds
from hirelc.search.fitting import Choices, Move, moves_of, whole_ledger
from hirelc.search.problem import Problem
from hirelc.search.surrogate import distortion_of

MOST_MOVES = 24  # of the cheapest in each direction: pairs grow with the square


def swaps(
    problem: Problem, choices: Sequence[Sequence[Choice]], byte_limit: int, bounds: Bounds, count: int
) -> list[tuple[Choices, ...]]:
    """The swaps with the least distortion, no two of which give to the same kernel.

    :param choices: canonical
    :param byte_limit: of the whole file; all other limits of the problem hold too
    """
    ledger = whole_ledger(problem, byte_limit)
    now = {block: tuple(decided) for block, decided in enumerate(choices)}
    here = problem.policy(choices)
    found: dict[Policy, tuple[float, Move, tuple[Choices, ...]]] = {}
    for given in _cheapest(moves_of(problem, ledger, now, bounds, up=False)):
        after = {**now, given.block: given.choices}
        for taken in _cheapest(moves_of(problem, ledger, after, bounds, up=True)):
            swapped = tuple({**after, taken.block: taken.choices}.values())
            if not ledger.exceeded(ledger.used(dict(enumerate(swapped)))):
                found.setdefault(problem.policy(swapped), (distortion_of(problem, swapped), taken, swapped))
    found.pop(here, None)
    chosen: dict[tuple[int, int], tuple[Choices, ...]] = {}
    for _, taken, swapped in sorted(found.values(), key=lambda entry: (entry[0], entry[1].block, entry[1].kernel)):
        chosen.setdefault((taken.block, taken.kernel), swapped)
    return list(chosen.values())[:count]


def _cheapest(moves: Sequence[Move]) -> list[Move]:
    return sorted(moves, key=lambda move: (move.adds / max(sum(map(abs, move.grows)), 1e-12), move.block, move.kernel))[
        :MOST_MOVES
    ]

"""A wish for the whole network as a step from the best policy so far.

Training goes on from the best weights, and what they are treated with by another policy costs them more than the proxy
says: where most kernels change at once, the training that is left makes up for that and for nothing else
(docs/decisions/0025).
"""

from __future__ import annotations

from collections.abc import Sequence

from hirelc.search.bounds import size_fraction
from hirelc.search.fitting import Choices, RateCurve
from hirelc.search.problem import Problem

STEP = 0.2  # of the kernels that a step decides anew; the kernels of one block at least


def step(
    problem: Problem, curves: Sequence[RateCurve], best: Sequence[Choices], wish: Sequence[Choices]
) -> tuple[tuple[Choices, ...], tuple[int, ...]]:
    """The best policy with the blocks of a wish that promise most, and which blocks these are.

    A block promises much where its wish distorts little for its size, and less so than the best policy does.

    :param curves: what each block's distortion usually is at a size
    :param best, wish: canonical, one choice per kernel, per block
    :returns: not yet fitted to any limit
    """

    def above(block: int, choices: Choices) -> float:
        return problem.block_distortion(block, choices) - curves[block].distortion(size_fraction(problem, block, choices))

    moved = {
        block: sum(a != b for a, b in zip(now, then, strict=True))
        for block, (now, then) in enumerate(zip(best, wish, strict=True))
        if tuple(now) != tuple(then)
    }
    left = STEP * sum(map(len, best))
    taken: list[int] = []
    for block in sorted(moved, key=lambda block: (above(block, wish[block]) - above(block, best[block]), block)):
        if not taken or moved[block] <= left:
            taken.append(block)
            left -= moved[block]
    stepped = tuple(tuple(wish[block] if block in taken else now) for block, now in enumerate(best))
    return stepped, tuple(sorted(taken))

"""Which model codes what: kernels share one where their own would cost more than it saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hirelc.artifact.entropy import Symbols, costs_of_counts

BITS_PER_COST = 9.0  # what a symbol of a model takes in the deflated manifest
BITS_PER_MODEL = 40.0
COSTS_OF_RUN, RUN = 4, 86  # a run of equal costs takes as much as four of them, and one more for each 86 symbols

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """A model as the manifest lists it."""

    first: int
    costs: tuple[int, ...]


def histogram(symbols: Symbols) -> tuple[int, Counts]:
    """The least symbol, and how often each one from it on occurs."""
    first = int(symbols.min())
    return first, np.bincount(symbols.ravel() - first).astype(np.int64)


def table_of(symbols: Symbols) -> Table:
    """A model of its own: each symbol's cost, costs by the run, or the flat one where too few symbols would pay for a table."""
    first, counts = histogram(symbols)
    smooth, likely = _smooth(counts)
    return Table(first, costs_of_counts(likely)) if smooth < min(_prices(counts)) else _table(first, counts)


def _table(first: int, counts: Counts) -> Table:
    flat, own = _prices(counts)
    return Table(first, (0,) * len(counts) if flat <= own else costs_of_counts(counts))


def _smooth(counts: Counts) -> tuple[float, NDArray[np.float64]]:
    """Bits of symbols and model, and the counts that it goes by: runs, twice as long each, away from the commonest symbol,
    that share one cost. A long tail of rare symbols needs no costs of their own.
    """
    middle = int(counts.argmax())
    likely, costs = counts.astype(np.float64), 0
    for side in (likely[middle + 1 :], likely[:middle][::-1]):
        start, width = 0, 1
        while start < len(side):
            run = side[start : start + width]
            run[:] = max(run.mean(), 0.5 / len(run))  # at least half a symbol: nothing in it is impossible
            costs += min(len(run), COSTS_OF_RUN) + len(run) // RUN
            start, width = start + width, 2 * width
    present = counts > 0
    bits = (counts[present] * np.log2(likely.sum() / likely[present])).sum()
    return float(bits + BITS_PER_MODEL + BITS_PER_COST * (1 + costs)), likely


def _prices(counts: Counts) -> tuple[float, float]:
    """Bits of symbols and model, with the flat model and with one that follows the counts."""
    present = counts[counts > 0]
    total = present.sum()
    flat = total * np.log2(len(counts)) + BITS_PER_MODEL
    own = (present * np.log2(total / present)).sum() + BITS_PER_MODEL + BITS_PER_COST * len(counts)
    return float(flat), float(own)


def share_models(parts: Sequence[Symbols]) -> tuple[list[Table], list[int]]:
    """Models for many parts, and which one each part uses.

    Parts join, largest first, the model whose bits grow least with them, unless one of their own takes fewer.
    """
    pools: list[tuple[int, Counts]] = []
    bits: list[float] = []  # of each pool and what it codes
    choice = [0] * len(parts)
    for index in sorted(range(len(parts)), key=lambda i: (-parts[i].size, i)):
        if not parts[index].size:
            continue  # an empty context: whichever model comes first
        first, counts = histogram(parts[index])
        joined = (first, counts)
        alone = min(_prices(counts))
        best, grows, price = len(pools), alone, alone
        for at, pool in enumerate(pools):
            both = _joined(pool, (first, counts))
            together = min(_prices(both[1]))
            if together - bits[at] < grows:
                best, grows, price, joined = at, together - bits[at], together, both
        pools[best : best + 1] = [joined]
        bits[best : best + 1] = [price]
        choice[index] = best
    return [_table(first, counts) for first, counts in pools], choice


def _joined(a: tuple[int, Counts], b: tuple[int, Counts]) -> tuple[int, Counts]:
    first = min(a[0], b[0])
    counts = np.zeros(max(a[0] + len(a[1]), b[0] + len(b[1])) - first, dtype=np.int64)
    for start, part in (a, b):
        counts[start - first : start - first + len(part)] += part
    return first, counts

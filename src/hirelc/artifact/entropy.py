"""The entropy coder: static models of integers, and one ANS stream of symbols. Specified in docs/format.md.

The arithmetic is `constriction`'s; what is ours are the models, whose frequencies are exact integers, so that any
reader gets the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hirelc.errors import FormatError

TOTAL_BITS = 24
COSTS_PER_BIT = 8
LARGEST_COST, ABSENT = 191, 255
MOST_SYMBOLS = 4096
CHUNK = 2**16  # symbols decoded at a time: they stay in the cache until they are codes
_WEIGHTS = [round(2**TOTAL_BITS * 2 ** (-j / COSTS_PER_BIT)) for j in range(COSTS_PER_BIT)]

Symbols = NDArray[np.int32]
Words = NDArray[np.uint32]


@dataclass(frozen=True)
class Model:
    """Integers from `first` on, and how likely each is.

    :param weights: relative, integers of at most 24 bits, not all zero
    """

    first: int
    weights: tuple[int, ...]

    @property
    def symbols(self) -> int:
        return len(self.weights)

    @cached_property
    def frequencies(self) -> NDArray[np.int64]:
        """Positive integers that sum to 2^24, (symbols,)."""
        before = np.concatenate([[0], np.cumsum(np.array(self.weights, dtype=np.int64))])
        bounds = before * (2**TOTAL_BITS - self.symbols) // before[-1]
        frequencies: NDArray[np.int64] = np.diff(bounds) + 1
        return frequencies

    @cached_property
    def bits(self) -> NDArray[np.float64]:
        """What each symbol costs, (symbols,)."""
        if self.symbols == 1:
            return np.zeros(1)
        return TOTAL_BITS - np.log2(self.frequencies)

    @cached_property
    def _categorical(self) -> Any:
        import constriction

        # it adds one to each frequency, as ours have it; with these sums it scales by exactly 1
        return constriction.stream.model.Categorical((self.frequencies - 1).astype(np.float64), perfect=False, lazy=False)


def model_of_costs(first: int, costs: Sequence[int]) -> Model:
    """A model of the file: a cost in eighths of a bit per symbol."""
    return Model(first, tuple(0 if c == ABSENT else _WEIGHTS[c % COSTS_PER_BIT] >> (c // COSTS_PER_BIT) for c in costs))


def costs_of_counts(counts: NDArray[np.int64] | NDArray[np.float64]) -> tuple[int, ...]:
    """The costs that describe counts, or mean ones, best."""
    shares = counts / counts.sum()
    with np.errstate(divide="ignore"):
        costs = np.rint(-COSTS_PER_BIT * np.log2(shares))
    return tuple(ABSENT if not n else int(min(c, LARGEST_COST)) for n, c in zip(counts, costs, strict=True))


def mask_model(full: int, kept: int) -> Model:
    """Zeros and ones, `kept` ones of `full`."""
    return Model(0, (full - kept, kept))


def encode(parts: Iterable[tuple[Symbols, Model]]) -> Words:
    """One stream of all parts, to be decoded in the same order."""
    import constriction

    coder = constriction.stream.stack.AnsCoder()
    for symbols, model in reversed(list(parts)):
        if model.symbols > 1 and symbols.size:
            coder.encode_reverse((symbols - model.first).astype(np.int32), model._categorical)
    words: Words = coder.get_compressed()
    return words


class Decoder:
    """Takes symbols off a stream.

    :param offset: of the words in the file, for messages
    :raises FormatError: the stream cannot be one
    """

    def __init__(self, words: Words, offset: int) -> None:
        import constriction

        self._offset = offset
        if words.size and words[-1] == 0:
            raise FormatError("the last code word is 0", offset + 4 * (words.size - 1))
        self._coder = constriction.stream.stack.AnsCoder(words)

    def take(self, model: Model, count: int) -> Symbols:
        """The next symbols, int32."""
        if model.symbols == 1 or not count:
            return np.full(count, model.first, dtype=np.int32)
        symbols: Symbols = self._coder.decode(model._categorical, count)
        symbols += model.first
        return symbols

    def take_codes(self, model: Model, count: int, levels: int) -> NDArray[np.uint8] | None:
        """The next symbols where they are indices of levels; None when one of them is not."""
        codes = np.empty(count, dtype=np.uint8)
        within = model.first >= 0 and model.first + model.symbols <= levels
        for start in range(0, count, CHUNK):
            symbols = self.take(model, min(CHUNK, count - start))
            if not within and (symbols.min() < 0 or symbols.max() >= levels):
                return None
            codes[start : start + CHUNK] = symbols
        return codes

    def finish(self) -> None:
        """:raises FormatError: something is left"""
        if not self._coder.is_empty():
            raise FormatError("the code words hold more than the manifest lists", self._offset)

"""Codes of convolutions by what their neighbours are: filters are smooth, and a tap is likely to follow the one before.

A code's context are the signs of the previous tap and of the tap above it, in the filter of the same two channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from hirelc.artifact.entropy import Symbols
from hirelc.layout import StoredKernel

CONTEXTS = 9
BITS_PER_CONTEXT = 30.0  # what each must save to pay for its model
MOST_TAPS = 8192  # of all kernels with contexts: a reader goes through them one by one, however few filters have them

Codes = NDArray[np.uint8]


def can_have_contexts(kernel: StoredKernel) -> bool:
    """Whether a kernel has filters of more than one tap, output channels first."""
    return len(kernel.shape) > 2 and kernel.channel_dim == 0 and taps_of(kernel) > 1


def taps_of(kernel: StoredKernel) -> int:
    """Places of a filter."""
    return math.prod(kernel.shape[2:])


def split(codes: Codes, kernel: StoredKernel, zero: int) -> Iterator[tuple[int, Codes]]:
    """(context, its codes) tap by tap, contexts ascending within a tap, in the order of the file.

    :param codes: (rows, weights per row)
    :param zero: the code that means zero
    """
    taps = np.ascontiguousarray(codes.reshape(-1, taps_of(kernel)).T)
    found = _Taps(kernel, zero)
    for tap in taps:
        for context, places in found.next_places():
            yield context, tap[places]
        found.add(tap)


def join(kernel: StoredKernel, zero: int, take: Callable[[int, int], Codes | None]) -> Codes | None:
    """The inverse of `split`: (rows, weights per row).

    :param take: (context, how many) -> the next codes, or None where one of them is no code
    """
    found = _Taps(kernel, zero)
    taps = np.empty((taps_of(kernel), kernel.shape[0] * kernel.shape[1]), dtype=np.uint8)
    for tap in taps:
        for context, places in found.next_places():
            codes = take(context, len(places))
            if codes is None:
                return None
            tap[places] = codes
        found.add(tap)
    return np.ascontiguousarray(taps.T).reshape(kernel.shape[0], -1)


class _Taps:
    """The signs of the taps so far, one per filter each, in raster order."""

    def __init__(self, kernel: StoredKernel, zero: int) -> None:
        self.width, self.zero = kernel.shape[-1], zero
        self.signs: list[NDArray[np.int8]] = []
        self.nothing = np.zeros(kernel.shape[0] * kernel.shape[1], dtype=np.int8)

    def next_places(self) -> Iterator[tuple[int, NDArray[np.intp]]]:
        """For each context, in which filters the next tap has it."""
        at = len(self.signs)
        previous = self.signs[-1] if at else self.nothing
        above = self.signs[at - self.width] if at >= self.width else self.nothing
        contexts = 3 * (previous + 1) + above + 1
        for context in range(CONTEXTS):
            places = np.flatnonzero(contexts == context)
            if places.size:
                yield context, places

    def add(self, tap: Codes) -> None:
        self.signs.append((tap > self.zero).astype(np.int8) - (tap < self.zero))


def by_context(codes: Codes, kernel: StoredKernel, zero: int, most_taps: int = MOST_TAPS) -> list[Symbols]:
    """All codes of each context, where it saves bits to tell them apart; else one part with all codes, row by row.

    :param most_taps: that are left for this kernel
    """
    whole = [codes.ravel().astype(np.int32)]
    if not can_have_contexts(kernel) or taps_of(kernel) > most_taps:
        return whole
    parts: list[list[Codes]] = [[] for _ in range(CONTEXTS)]
    for context, some in split(codes, kernel, zero):
        parts[context].append(some)
    told = [np.concatenate(part).astype(np.int32) if part else np.empty(0, np.int32) for part in parts]
    apart = sum(_ideal_bits(part) + BITS_PER_CONTEXT for part in told)
    return told if apart < _ideal_bits(whole[0]) else whole


def _ideal_bits(symbols: Symbols) -> float:
    counts = np.bincount(symbols) if symbols.size else np.empty(0)
    counts = counts[counts > 0]
    return float((counts * np.log2(counts.sum() / counts)).sum())

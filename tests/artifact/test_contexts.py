"""Codes told apart by their neighbours: nothing is lost on any shape, and it is done only where it pays."""

from __future__ import annotations

import numpy as np
import pytest

from hirelc.artifact.contexts import CONTEXTS, by_context, can_have_contexts, join, split
from hirelc.layout import StoredKernel
from hirelc.policy import Choice

SHAPES = [(5, 3, 3, 3), (4, 1, 3, 3), (3, 2, 7), (2, 3, 2, 3, 4), (1, 1, 1, 2), (6, 2, 5, 1)]


def stored(shape: tuple[int, ...], channel_dim: int = 0) -> StoredKernel:
    return StoredKernel("conv.weight", shape, channel_dim, Choice(3))


def codes(shape: tuple[int, ...], seed: int, smooth: bool) -> np.ndarray:
    random = np.random.default_rng(seed)
    filters, taps = shape[0] * shape[1], int(np.prod(shape[2:]))
    found = random.integers(0, 7, (filters, taps))
    if smooth:
        found = np.repeat(random.integers(0, 7, (filters, 1)), taps, 1)
    return found.astype(np.uint8).reshape(shape[0], -1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("zero", [0, 3, 6])
def test_what_is_split_is_joined_again(shape: tuple[int, ...], zero: int) -> None:
    before = codes(shape, 0, smooth=False)
    order = []
    for context, part in split(before, stored(shape), zero):
        assert 0 <= context < CONTEXTS and part.size
        order.append((context, part))
    queue = iter(order)

    def take(context: int, count: int) -> np.ndarray:
        expected, part = next(queue)
        assert (expected, len(part)) == (context, count)
        return part

    after = join(stored(shape), zero, take)
    assert np.array_equal(after, before)
    assert next(queue, None) is None


def test_a_code_beyond_the_levels_ends_it() -> None:
    assert join(stored((5, 3, 3, 3)), 3, lambda context, count: None) is None


def test_contexts_are_signs_of_the_taps_before() -> None:
    # one filter of two by two taps: 0, 2 over 1, 2 with 1 for zero
    found = [context for context, _ in split(np.array([[0, 2, 1, 2]], dtype=np.uint8), stored((1, 1, 2, 2)), 1)]
    assert found == [4, 3 * 0 + 1, 3 * 2 + 0, 3 * 1 + 2]


def test_contexts_end_where_a_reader_would_take_long() -> None:
    kernel = stored((32, 16, 3, 3))
    smooth = codes(kernel.shape, 1, smooth=True)
    assert [len(by_context(smooth, kernel, 3, left)) for left in (8, 9)] == [1, CONTEXTS]


def test_smooth_filters_are_told_apart_and_others_not() -> None:
    kernel = stored((32, 16, 3, 3))
    apart = by_context(codes(kernel.shape, 1, smooth=True), kernel, 3)
    assert len(apart) == CONTEXTS and sum(part.size for part in apart) == 32 * 16 * 9
    assert len(by_context(codes(kernel.shape, 1, smooth=False), kernel, 3)) == 1


def test_kernels_without_taps_have_none() -> None:
    assert not can_have_contexts(stored((8, 4)))
    assert not can_have_contexts(stored((8, 4, 1, 1)))
    assert not can_have_contexts(stored((8, 4, 3, 3), channel_dim=1))
    assert can_have_contexts(stored((8, 1, 3)))

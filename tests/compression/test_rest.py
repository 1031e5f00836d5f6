"""Norms, biases and embeddings as integers times a step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hirelc.compression.grid import LOWEST, NUMBERS
from hirelc.compression.rest import EXACT, WIDEST, CodedTensor, code, is_finite, restore


def step_of(coded: CodedTensor) -> float:
    return float(NUMBERS[coded.step - LOWEST])


@settings(deadline=None)
@given(size=st.integers(2, 300), shift=st.floats(-50, 50), spread=st.floats(-8, 8), seed=st.integers(0, 99))
def test_the_error_is_at_most_half_a_step(size: int, shift: float, spread: float, seed: int) -> None:
    values = ((np.random.default_rng(seed).standard_normal(size) + shift) * 10.0**spread).astype(np.float32)
    coded = code(values)
    assert coded is not None
    step = step_of(coded)
    rounding = float(np.abs(values).max()) * 2**-23  # of the product, in float32
    assert float(np.abs(restore(coded) - values).max()) <= step / 2 + rounding
    deviation = float(np.abs(values - np.median(values)).mean())
    coarsest = max(deviation / 8, float(np.abs(values).max()) / EXACT)
    assert step <= coarsest * 2 ** (1 / 16) * (1 + 1e-6)  # the grid's nearest
    assert np.abs(coded.symbols).max() <= WIDEST


@pytest.mark.parametrize("value", [1.0, -1.0, 0.5, 2.0, 0.0, 1024.0, 0.75, -3.0, 2.0**-20])
@pytest.mark.parametrize("size", [1, 5])
def test_round_constants_are_exact(value: float, size: int) -> None:
    coded = code(np.full(size, value, dtype=np.float32))
    assert coded is not None
    assert not coded.symbols.any()
    assert (restore(coded) == np.float32(value)).all()


@given(st.floats(-20, 20))
def test_other_constants_are_right_to_three_digits(power: float) -> None:
    value = 10.0**power
    coded = code(np.full(3, value, dtype=np.float32))
    assert coded is not None
    assert restore(coded) == pytest.approx(np.full(3, value), rel=2**-11)


def test_outliers_are_left_to_the_raw_section() -> None:
    values = np.zeros(1000, dtype=np.float32)
    values[:3] = 1.0, -1.0, 1e6
    assert code(values) is None
    values[2] = 0.5
    assert code(values) is None  # mostly zeros: the deviation, and so the step, is too small for a range of 2 x 1000 steps
    assert code(np.random.default_rng(0).standard_normal(1000).astype(np.float32)) is not None


def test_nothing_and_zeros() -> None:
    for values in (np.zeros(0, dtype=np.float32), np.zeros(7, dtype=np.float32)):
        coded = code(values)
        assert coded is not None
        assert restore(coded).tolist() == values.tolist()


def test_numbers_at_the_ends_of_float32_do_not_break() -> None:
    for value in (1e-45, 1e-38, 3e38):
        coded = code(np.array([value, -value, value / 2], dtype=np.float32))
        assert coded is None or np.isfinite(restore(coded)).all()


def test_finite_or_not() -> None:
    symbols = np.array([0, 1], dtype=np.int32)
    assert is_finite(CodedTensor(1000, 3, symbols)) and np.isfinite(restore(CodedTensor(1000, 3, symbols))).all()
    for origin in (8, -9, 2**31):
        assert not is_finite(CodedTensor(1000, origin, symbols))
    assert is_finite(CodedTensor(1000, 2**31, symbols[:0]))

"""The grid of numbers: as docs/format.md lists it, exact, and its own nearest."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hirelc.compression.grid import HIGHEST, LEAST_SCALE, LOWEST, MOST_SCALE, NUMBERS, OCTAVE, exponents_of, numbers, on_grid

FORMAT = Path(__file__).parents[2] / "docs/format.md"


def test_the_table_is_the_documents() -> None:
    line = re.search(r"B = float32 of (.+)", FORMAT.read_text())
    assert line is not None
    listed = [np.float32(number) for number in line[1].split(",")]
    assert listed == list(OCTAVE)
    assert len(NUMBERS) == HIGHEST - LOWEST + 1 == 2001


@given(st.integers(LOWEST, HIGHEST))
def test_every_number_is_exact(e: int) -> None:
    """The float32 of the octave times a power of two, without a rounding in between."""
    exact = Fraction(float(OCTAVE[e % 8])) * Fraction(2) ** (e // 8)
    assert Fraction(float(NUMBERS[e - LOWEST])) == exact
    assert float(NUMBERS[e - LOWEST]) == pytest.approx(2.0 ** (e / 8), rel=1e-7)


def test_numbers_are_normal_and_ascending() -> None:
    assert (np.diff(NUMBERS) > 0).all()
    assert NUMBERS[0] >= np.finfo(np.float32).tiny and np.isfinite(NUMBERS[-1])


def test_the_grid_is_its_own_nearest() -> None:
    exponents = torch.arange(LEAST_SCALE, MOST_SCALE + 1)
    values = numbers(exponents)
    assert torch.equal(exponents_of(values), exponents)
    assert torch.equal(on_grid(values), values)


@given(st.floats(2.0**-39, 2.0**39))
def test_the_nearest_is_within_half_a_step(value: float) -> None:
    found = float(on_grid(torch.tensor(value)))
    assert abs(math.log2(found / value)) <= 1 / 16 + 1e-5  # the logarithm is taken in float32
    assert float(on_grid(torch.tensor(found))) == found


def test_what_is_beyond_the_range_is_clamped() -> None:
    found = exponents_of(torch.tensor([0.0, 1e-30, 1e30, -1.0]))
    assert found.tolist() == [LEAST_SCALE, LEAST_SCALE, MOST_SCALE, LEAST_SCALE]

"""The values of the formats against their outside definitions; what all formats share is in contracts/."""

from __future__ import annotations

import math

import pytest
import torch

from hirelc.formats import MINIFLOATS, levels
from hirelc.policy import Granularity, NumberType


def test_eight_bit_floats_are_torch_e4m3fn() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    expected = sorted({value + 0.0 for value in every.tolist() if math.isfinite(value)})
    assert list(levels(8, NumberType.FLOAT, Granularity.PER_CHANNEL)) == expected


def test_four_bit_floats_are_ocp_fp4() -> None:
    assert levels(4, NumberType.FLOAT, Granularity.PER_CHANNEL)[7:] == (0, 0.5, 1, 1.5, 2, 3, 4, 6)


def test_six_bit_floats_are_ocp_e3m2() -> None:
    found = levels(6, NumberType.FLOAT, Granularity.PER_CHANNEL)
    assert found[-1] == 28
    assert min(level for level in found if level > 0) == 0.0625


@pytest.mark.parametrize("bits", MINIFLOATS)
def test_sign_exponent_and_mantissa_fill_the_bits(bits: int) -> None:
    exponent, mantissa = MINIFLOATS[bits]
    assert 1 + exponent + mantissa == bits
    lost = 3 if bits == 8 else 1  # one of the two zeros; E4M3 also gives up two patterns for NaN
    assert len(levels(bits, NumberType.FLOAT, Granularity.UNIFORM)) == 2**bits - lost


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("kind", list(NumberType))
def test_log_levels_are_zero_and_signed_powers_of_two(bits: int, kind: NumberType) -> None:
    found = levels(bits, kind, Granularity.LOG)
    assert len(found) == 2**bits - 1
    assert all(math.frexp(abs(level))[0] == 0.5 for level in found if level)
    assert found[-1] == 1.0


@pytest.mark.parametrize("bits", range(2, 9))
def test_integers(bits: int) -> None:
    top = 2 ** (bits - 1) - 1
    assert levels(bits, NumberType.INT, Granularity.PER_CHANNEL) == tuple(range(-top, top + 1))
    assert levels(bits, NumberType.INT, Granularity.UNIFORM) == tuple(range(2**bits))

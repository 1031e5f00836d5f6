"""Number formats: which values a weight may take, in units of its scale. No tensors, no state.

A format is a *codebook*: ascending levels; the stored code of a weight is the index of its level.

    INT     2^b - 1 integers, symmetric around zero; with a zero point (granularity `uniform`) all 2^b of them
    FLOAT   minifloats without infinities: 8 E4M3, 7 E3M3, 6 E3M2, 5 E2M2, 4 E2M1, 3 E1M1, 2 E1M0
            (E4M3 gives up its two NaN patterns as in the OCP 8-bit specification; +0 and -0 are one level)
    LOG     zero and signed powers of two, 2^b - 1 levels, whatever the number type

At two bits every symmetric format is ternary, and an E1My float is an integer grid: the names differ, the levels do not.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

from hirelc.policy import Choice, Granularity, NumberType

# bits -> (exponent bits, mantissa bits); one bit is the sign
MINIFLOATS = {8: (4, 3), 7: (3, 3), 6: (3, 2), 5: (2, 2), 4: (2, 1), 3: (1, 1), 2: (1, 0)}


def _minifloat_magnitudes(bits: int) -> list[float]:
    exponent_bits, mantissa_bits = MINIFLOATS[bits]
    bias = 2 ** (exponent_bits - 1) - 1
    steps = 2**mantissa_bits
    values = []
    for exponent in range(2**exponent_bits):
        for mantissa in range(steps):
            if bits == 8 and exponent == 15 and mantissa == steps - 1:
                continue  # NaN in E4M3
            if exponent == 0:
                values.append(2.0 ** (1 - bias) * mantissa / steps)
            else:
                values.append(2.0 ** (exponent - bias) * (1 + mantissa / steps))
    return values


@cache
def levels(bits: int, number_type: NumberType, granularity: Granularity) -> tuple[float, ...]:
    """Ascending levels of a format, in units of its scale (before any zero point).

    >>> levels(3, NumberType.INT, Granularity.LEARNED)
    (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
    >>> levels(3, NumberType.INT, Granularity.LOG)
    (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0)
    """
    if granularity is Granularity.LOG:
        count = 2 ** (bits - 1) - 1
        magnitudes = [0.0] + [2.0 ** (k - count + 1) for k in range(count)]
    elif number_type is NumberType.FLOAT:
        magnitudes = _minifloat_magnitudes(bits)
    elif granularity is Granularity.UNIFORM:
        return tuple(float(code) for code in range(2**bits))  # the zero point is subtracted
    else:
        magnitudes = [float(k) for k in range(2 ** (bits - 1))]
    return tuple([-m for m in reversed(magnitudes) if m] + magnitudes)


def levels_of(choice: Choice) -> tuple[float, ...]:
    """The levels that a choice quantizes to."""
    return levels(choice.bits, choice.number_type, choice.granularity)


def has_zero_point(choice: Choice) -> bool:
    """Whether one zero point, a byte per tensor, is stored beside the scale."""
    return choice.number_type is NumberType.INT and choice.granularity is Granularity.UNIFORM


def per_channel(choice: Choice) -> bool:
    """Whether the scale is one per output channel (else one per tensor)."""
    return choice.granularity in (Granularity.PER_CHANNEL, Granularity.LEARNED)


def is_integer_grid(choice: Choice) -> bool:
    """Whether the levels are consecutive integers, so that rounding finds the nearest."""
    grid = levels_of(choice)
    return all(b - a == 1 for a, b in pairwise(grid))

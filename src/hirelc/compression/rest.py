"""Tensors that are no kernels (norms, biases, embeddings) as integers times a step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hirelc.compression.grid import LOWEST, NUMBERS, PER_OCTAVE

STEPS_PER_DEVIATION = (8, 6, 4, 3)  # the error is then 3 to 8 % of the tensor's own spread
WIDEST = 1000  # largest symbol: what spreads further is stored raw
EXACT = 2**20  # origins below it, and steps down to it relative to the values, stay exact in float32


@dataclass(frozen=True)
class CodedTensor:
    """Values (origin + symbol) * step.

    :param step: exponent of a grid number
    :param symbols: int32, flat
    """

    step: int
    origin: int
    symbols: NDArray[np.int32]


def code(
    values: NDArray[np.float32], steps_per_deviation: float = STEPS_PER_DEVIATION[0], at_most: float = math.inf
) -> CodedTensor | None:
    """The integers nearest to finite values, with a step that follows from their spread; None where none fits.

    The step is a fraction of the mean deviation from the median. Constant tensors get a step that leaves eleven
    digits, so that ones stay ones.

    :param at_most: a deviation beyond which it does not count, where more is known of what errors matter
    """
    flat = values.ravel().astype(np.float64)  # differences of the largest float32 numbers are none
    if not flat.size or not flat.any():
        return CodedTensor(0, 0, np.zeros(flat.size, dtype=np.int32))
    middle = float(np.median(flat))
    deviation = min(float(np.abs(flat - middle).mean()), at_most)
    largest = float(np.abs(flat).max())
    wanted = max(deviation / steps_per_deviation, largest / EXACT)
    exponent = PER_OCTAVE * (math.floor(math.log2(largest)) - 10) if deviation == 0 else round(PER_OCTAVE * math.log2(wanted))
    if not LOWEST < exponent < -LOWEST:
        return None
    integers = np.rint(flat / NUMBERS[exponent - LOWEST])
    origin = int(np.rint(np.median(integers)))
    symbols = integers - origin
    if abs(origin) > 2 * EXACT or np.abs(symbols).max() > WIDEST:
        return None
    coded = CodedTensor(exponent, origin, symbols.astype(np.int32))
    return coded if is_finite(coded) else None


def restore(coded: CodedTensor) -> NDArray[np.float32]:
    """The values that a coded tensor stands for, flat float32."""
    integers = (coded.symbols.astype(np.int64) + coded.origin).astype(np.float32)
    values: NDArray[np.float32] = integers * NUMBERS[coded.step - LOWEST]
    return values


def is_finite(coded: CodedTensor) -> bool:
    """Whether all values are; integers of any size and any step can be asked about."""
    if not coded.symbols.size:
        return True
    ends = np.array([coded.symbols.min(), coded.symbols.max()], dtype=np.int64) + coded.origin
    with np.errstate(over="ignore"):
        return bool(np.isfinite(ends.astype(np.float32) * NUMBERS[coded.step - LOWEST]).all())

"""Weights as whole numbers: the codes of the file, widened to a type that ONNX has.

A kernel's weights are `level * scale`. Where all levels in use, times a power of two, are whole numbers that fit eight
bits, the weights are those numbers and `scale / power`; nothing is rounded. Else the kernel stays float, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hirelc.compression.quantize import Quantized
from hirelc.formats import levels_of

POWERS = tuple(2**k for k in range(16))


@dataclass(frozen=True)
class IntegerWeight:
    """A kernel as whole numbers: the weight is (values - zero_point) * scale along the channel dimension.

    :param values: int8 or uint8, the kernel's shape
    :param scale: float32, (channels,) or (1,)
    :param zero_point: of uint8 values; 0 for int8
    :param axis: the channel dimension
    """

    values: NDArray[np.int8] | NDArray[np.uint8]
    scale: NDArray[np.float32]
    zero_point: int
    axis: int

    @property
    def fits_four_bits(self) -> bool:
        """Whether INT4 holds the values."""
        return self.values.dtype == np.int8 and int(self.values.min(initial=0)) >= -8 and int(self.values.max(initial=0)) <= 7


@dataclass(frozen=True)
class FloatWeight:
    """A kernel that stays float, and why."""

    reason: str


def as_integers(
    quantized: Quantized, shape: tuple[int, ...], axis: int, factor: NDArray[np.float64] | None = None
) -> IntegerWeight | FloatWeight:
    """The kernel in whole numbers.

    :param shape: of the kernel; `axis` holds its channels
    :param factor: one number per channel that a BatchNorm multiplies with; its sign goes into the values
    """
    levels = np.asarray(levels_of(quantized.choice), dtype=np.float64)
    units = levels[quantized.codes.numpy()] - (quantized.zero_point or 0)
    scale = quantized.scale.numpy().astype(np.float64).ravel()
    if factor is not None:
        units = units * np.where(factor < 0, -1.0, 1.0)[:, None]
        scale = scale * np.abs(factor)
        if not (scale > 0).all():  # a channel that its BatchNorm switched off
            units, scale = units * (scale > 0)[:, None], np.where(scale > 0, scale, 1.0)
    power = next((p for p in POWERS if (units * p == np.round(units * p)).all()), None)
    if power is None:
        return FloatWeight("its levels are no whole numbers at any scale up to 2^15")
    whole = units * power
    zero = 0
    low, high = (float(whole.min()), float(whole.max())) if whole.size else (0.0, 0.0)
    if low >= -128 and high <= 127:
        values: NDArray[np.int8] | NDArray[np.uint8] = whole.astype(np.int8)
    elif high - low <= 255:
        zero = int(-low) if low < 0 else 0
        values = (whole + zero).astype(np.uint8)
    else:
        return FloatWeight(f"its levels span {low:.0f} .. {high:.0f} in whole numbers, more than eight bits hold")
    moved = (shape[axis], *shape[:axis], *shape[axis + 1 :])
    placed: Any = np.ascontiguousarray(np.moveaxis(values.reshape(moved), 0, axis))
    return IntegerWeight(placed, (scale / power).astype(np.float32), zero, axis)

"""Positive numbers that the file can name by a small integer: eight per octave, each exact in float32.

Scales lie on this grid. A scale that is off by half a step (4.4 %) costs next to nothing, because the codes are
found for the scale that is stored; an fp16 scale would take three times the bits.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

PER_OCTAVE = 8
LOWEST, HIGHEST = -1000, 1000
OCTAVE = np.array([2.0 ** (j / PER_OCTAVE) for j in range(PER_OCTAVE)], dtype=np.float32)
_EXPONENTS = np.arange(LOWEST, HIGHEST + 1)
NUMBERS = np.ldexp(OCTAVE[_EXPONENTS % PER_OCTAVE], _EXPONENTS // PER_OCTAVE).astype(np.float32)

_TABLE = torch.from_numpy(NUMBERS)
# far inside the grid, so that a scale times a level stays a normal float32 number
LEAST_SCALE, MOST_SCALE = -320, 320


def exponents_of(scale: Tensor) -> Tensor:
    """The grid's nearest numbers (in ratio), as int64 exponents."""
    return (PER_OCTAVE * torch.log2(scale.float().clamp_min(1e-38))).round().clamp_(LEAST_SCALE, MOST_SCALE).long()


def numbers(exponents: Tensor) -> Tensor:
    """float32 numbers of exponents."""
    return _TABLE.to(exponents.device)[exponents - LOWEST]


def on_grid(scale: Tensor) -> Tensor:
    """The nearest numbers that the file can hold."""
    return numbers(exponents_of(scale))

"""The range of an activation: the scale and zero point of least squared error on samples of it."""

from __future__ import annotations

import torch
from torch import Tensor

PER_BATCH = 8192  # values kept of each call
SHRINKS = tuple(0.1 + 0.03 * step for step in range(31))  # of the range seen; the last is all of it
LEVELS = 255
SMALLEST = 1e-8  # a scale for what is always zero


class Samples:
    """Values of one tensor over the calibration, thinned evenly, with the extremes."""

    def __init__(self) -> None:
        self.parts: list[Tensor] = []

    def add(self, values: Tensor) -> None:
        flat = values.detach().float().reshape(-1).cpu()
        if flat.numel() == 0:
            return
        step = max(1, flat.numel() // PER_BATCH) | 1  # odd, so that it meets all channels of a row
        self.parts.append(torch.cat([flat[::step], flat.amin()[None], flat.amax()[None]]))

    def values(self) -> Tensor:
        return torch.cat(self.parts) if self.parts else torch.zeros(1)


def search_range(samples: Samples) -> tuple[float, int]:
    """Scale (a float32 number) and zero point; zero is always a level."""
    values = samples.values()
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if high - low < LEVELS * SMALLEST:
        return float(torch.tensor(SMALLEST)), 0
    best = (float("inf"), 0.0, 0)
    for a in SHRINKS if low < 0 else (1.0,):
        for b in SHRINKS if high > 0 else (1.0,):
            if low < 0 < high and not 0.4 < a / b < 2.5:
                continue  # one end clipped much harder than the other never wins
            scale, zero = _affine(low * a, high * b)
            error = float((_rounded(values, scale, zero) - values).square().sum())
            if error < best[0]:
                best = (error, scale, zero)
    return best[1], best[2]


def _affine(low: float, high: float) -> tuple[float, int]:
    scale = float(torch.tensor(max((high - low) / LEVELS, SMALLEST), dtype=torch.float32))
    return scale, min(max(round(-low / scale), 0), LEVELS)


def _rounded(values: Tensor, scale: float, zero: int) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, LEVELS)

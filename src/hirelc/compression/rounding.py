"""Rounding that knows what a layer reads: least squares on second moments, one column of weights after the other.

As in optimal brain quantization (Frantar and Alistarh, "Optimal Brain Compression", NeurIPS 2022, and GPTQ, ICLR 2023):
the error made by rounding a weight is taken over by the weights of its row that are not rounded yet, as far as their
inputs go together. All matrices here are float64 except the weights in hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hirelc.compression.quantize import Grid

RIDGE = 0.02  # of the mean second moment: how firmly refitted weights are held where they are
DAMPING = 0.01  # the same, while rounding
AT_ONCE = 128  # columns whose errors the others take over together


def refit(weight: Tensor, inputs: Tensor, cross: Tensor) -> Tensor:
    """The weights that come nearest to the wanted outputs, held to the given ones where the samples do not say.

    Minimises E|y - W x|^2 + ridge |W - weight|^2. Where channels are pruned, or x is not what the original's layer
    reads, this is the least-squares compensation by what remains.

    :param weight: (m, n)
    :param inputs: (n, n), E x x^T of what the layer reads now
    :param cross: (m, n), E y x^T of what it should give
    """
    held = inputs + RIDGE * _scale(inputs) * torch.eye(len(inputs), dtype=inputs.dtype, device=inputs.device)
    change: Tensor = torch.linalg.solve(held, (cross - weight @ inputs).T).T
    return weight + change


@dataclass(frozen=True)
class Levels:
    """What the rows of a kernel may be rounded to, and what it costs.

    :param scale: (m, 1) or (1, 1)
    :param zero: what is subtracted from a level
    :param costs: bits of each level, (levels,)
    """

    grid: Grid
    scale: Tensor
    zero: int
    costs: Tensor

    def nearest(self, weights: Tensor) -> Tensor:
        """:param weights: (m, n)"""
        return (self.grid.nearest(weights / self.scale + self.zero) - self.zero) * self.scale

    def cheapest(self, column: Tensor, weight_of_error: Tensor, price: float) -> Tensor:
        """The level of least error + price x bits: one of the two that a weight lies between, or zero.

        :param column: (m, 1)
        :param weight_of_error: (m, 1)
        """
        if price == 0:
            return self.nearest(column)
        levels = self.grid.levels
        units = column / self.scale + self.zero
        right = torch.bucketize(units.clamp(levels[0], levels[-1]), levels).clamp_(1, len(levels) - 1)
        nothing = torch.full_like(right, int((levels - self.zero).abs().argmin()))
        choices = torch.stack([right - 1, right, nothing])
        losses = weight_of_error * ((levels[choices] - units) * self.scale).square() + price * self.costs[choices]
        return (levels[choices.gather(0, losses.argmin(0, keepdim=True))[0]] - self.zero) * self.scale


def round_columns(weight: Tensor, inputs: Tensor, levels: Levels, sensitivity: Tensor, price: float = 0.0) -> Tensor:
    """Levels whose outputs come near to those of the weights, (m, n) float32.

    :param weight: (m, n)
    :param inputs: (n, n), E x x^T
    :param sensitivity: (m,), loss per squared error of each output
    :param price: loss per bit
    """
    order = torch.argsort(inputs.diagonal(), descending=True, stable=True)  # what is read loudly is rounded first
    factor = _inverse_factor(inputs[order][:, order]).float()
    left, found = weight[:, order].float(), torch.empty_like(weight, dtype=torch.float32)
    columns = weight.shape[1]
    for start in range(0, columns, AT_ONCE):
        end = min(start + AT_ONCE, columns)
        errors = left.new_empty(len(left), end - start)
        for j in range(start, end):
            pivot = factor[j, j]
            column = left[:, j : j + 1]
            rounded = levels.cheapest(column, sensitivity[:, None] / pivot.square(), price)
            found[:, order[j]] = rounded[:, 0]
            error = (column - rounded) / pivot
            left[:, j + 1 : end] -= error * factor[j, j + 1 : end]
            errors[:, j - start : j - start + 1] = error
        left[:, end:] -= errors @ factor[start:end, end:]
    return found


def _inverse_factor(inputs: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse of damped second moments."""
    damping = DAMPING
    identity = torch.eye(len(inputs), dtype=inputs.dtype, device=inputs.device)
    while True:
        lower, failed = torch.linalg.cholesky_ex(inputs + damping * _scale(inputs) * identity)
        if not failed:
            upper: Tensor
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed:
                return upper
        damping *= 10  # rounding noise of nearly singular moments; a large enough multiple of one always works


def _scale(inputs: Tensor) -> float:
    """The mean second moment; 1 where nothing is ever read."""
    return float(inputs.diagonal().mean()) or 1.0

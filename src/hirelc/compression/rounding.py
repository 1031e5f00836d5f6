"""Rounding that knows what a layer reads: least squares on second moments, one column of weights after the other.

As in optimal brain quantization (Frantar and Alistarh, "Optimal Brain Compression", NeurIPS 2022, and GPTQ, ICLR 2023):
the error made by rounding a weight is taken over by the weights of its row that are not rounded yet, as far as their
inputs go together. All matrices here are float64 except the weights in hand.
"""

from __future__ import annotations

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


def round_columns(weight: Tensor, inputs: Tensor, grid: Grid, scale: Tensor, zero: int = 0) -> Tensor:
    """Levels whose outputs come near to those of the weights, (m, n) float32.

    :param weight: (m, n)
    :param inputs: (n, n), E x x^T
    :param scale: (m, 1) or (1, 1)
    :param zero: what is subtracted from a level before it is scaled
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
            rounded = (grid.nearest(column / scale + zero) - zero) * scale
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

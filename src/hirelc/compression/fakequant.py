"""Quantization inside training: the forward pass uses what the file will hold, gradients pass straight through.

`learned` steps are trained by the gradient of Esser et al., "Learned Step Size Quantization" (ICLR 2020),
written here for any codebook. Its gradient scale is left out: Adam, which trains the steps, does not see it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hirelc.compression.grid import on_grid
from hirelc.compression.quantize import Grid, Quantized, as_rows, dequantize, from_rows, quantize, search_scale
from hirelc.policy import Choice, Granularity


class _StraightThrough(torch.autograd.Function):
    """rows, scale -> nearest level x scale. Gradient of the rows: one inside the range, zero outside."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, scale: Tensor, grid: Grid, zero_point: int, trains_scale: bool) -> Tensor:
        units = rows / scale
        levels = grid.nearest(units + zero_point) - zero_point if zero_point else grid.nearest(units)
        low, high = grid.levels[0] - zero_point, grid.levels[-1] - zero_point
        inside = (units >= low) & (units <= high)
        if trains_scale:
            ctx.save_for_backward(inside, torch.where(inside, levels - units, levels))
        else:
            ctx.save_for_backward(inside)
        ctx.trains_scale = trains_scale
        ctx.per_channel = scale.shape[0] > 1
        return levels * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        inside = ctx.saved_tensors[0]
        scale_gradient = None
        if ctx.trains_scale:
            product = gradient * ctx.saved_tensors[1]
            scale_gradient = product.sum(1, keepdim=True) if ctx.per_channel else product.sum().view(1, 1)
        return gradient * inside, scale_gradient, None, None, None


class Quantizer(nn.Module):
    """Quantizes one kernel under a choice.

    :param weight: the kernel at the start, any shape
    :param channel_dim: its output-channel dimension
    :param importance: weights of the squared errors, same shape; used by `learned` to start at the step of least loss
    :ivar trained: whether the scale is one that training came to
    """

    zero: Tensor | None

    def __init__(self, weight: Tensor, channel_dim: int, choice: Choice, importance: Tensor | None = None) -> None:
        super().__init__()
        self.choice = choice
        self.trained = False
        self.channel_dim = channel_dim
        self.grid = Grid.of(choice, weight.device)
        rows = as_rows(weight.detach().float(), channel_dim)
        learned = choice.granularity is Granularity.LEARNED
        weights = None if importance is None or not learned else _softened(as_rows(importance, channel_dim))
        scale, zero_point = search_scale(rows, choice, weights)
        self.scale = nn.Parameter(scale, requires_grad=learned)
        # part of the state: a candidate that is brought back must get its own, not one found anew
        self.register_buffer("zero", None if zero_point is None else torch.tensor(zero_point))

    @property
    def zero_point(self) -> int | None:
        return None if self.zero is None else int(self.zero)

    def stored_scale(self) -> Tensor:
        """The scale as the file stores it; gradients pass straight through."""
        if not self.scale.requires_grad:
            return self.scale
        return on_grid(self.scale.detach()) + (self.scale - self.scale.detach())

    def forward(self, weight: Tensor) -> Tensor:
        """The kernel as it will be read back, same shape and dtype as `weight`."""
        rows = as_rows(weight.float(), self.channel_dim)
        scale = self.stored_scale()
        values = _StraightThrough.apply(  # type: ignore[no-untyped-call]
            rows, scale, self.grid, self.zero_point or 0, scale.requires_grad
        )
        return from_rows(values, tuple(weight.shape), self.channel_dim).to(weight.dtype)

    def codes(self, weight: Tensor) -> Quantized:
        """What the file holds of this kernel."""
        rows = as_rows(weight.detach().float(), self.channel_dim)
        return quantize(rows, self.choice, on_grid(self.scale.detach()), self.zero_point)


def restore(quantized: Quantized, shape: tuple[int, ...], channel_dim: int) -> Tensor:
    """The kernel that codes and scales stand for, float32."""
    return from_rows(dequantize(quantized), shape, channel_dim)


def _softened(importance: Tensor) -> Tensor:
    """Fisher weights with a floor: a few hundred samples must not declare weights worthless."""
    return importance + importance.mean() + 1e-20

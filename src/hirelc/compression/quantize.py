"""From weights to codes and back. The scales are found by search for the least error, never from the largest value.

All functions see a kernel as rows: shape (channels, weights per channel), float32. Scales have shape (channels, 1)
or (1, 1) and always lie on the grid of numbers that the file can name.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hirelc.compression.grid import PER_OCTAVE, exponents_of, numbers, on_grid
from hirelc.formats import has_zero_point, is_integer_grid, levels_of, per_channel
from hirelc.policy import Choice
from hirelc.precision import can_be_coarse

# candidate scales, from a fifth of what the largest weight asks for to a little more; the 26th is exactly that
SHRINKS = tuple(0.2 + 0.032 * step for step in range(28))
SCALE_FLOOR = 2.0**-40  # far below any weight that matters


@dataclass(frozen=True)
class Grid:
    """A codebook on a device: ascending `levels`, and the midpoints between them."""

    levels: Tensor
    midpoints: Tensor
    integer: bool

    @classmethod
    def of(cls, choice: Choice, device: torch.device | str = "cpu") -> Grid:
        values = torch.tensor(levels_of(choice), dtype=torch.float32, device=device)
        return cls(values, (values[1:] + values[:-1]) / 2, is_integer_grid(choice))

    def codes(self, units: Tensor) -> Tensor:
        """Index of the nearest level of each value (values in units of the scale), int64."""
        if self.integer:
            return (units.round() - self.levels[0]).clamp_(0, len(self.levels) - 1).long()
        return torch.bucketize(units, self.midpoints)

    def nearest(self, units: Tensor) -> Tensor:
        """The nearest level of each value, in units of the scale."""
        if self.integer:
            return units.round().clamp_(self.levels[0].item(), self.levels[-1].item())
        return self.levels[torch.bucketize(units, self.midpoints)]


@dataclass(frozen=True)
class Quantized:
    """What the file holds of one kernel.

    :param codes: level indices, uint8, (channels, weights per channel)
    :param scale: float32 numbers of the grid, (channels, 1) or (1, 1)
    :param zero_point: the level index that means zero, or None
    """

    choice: Choice
    codes: Tensor
    scale: Tensor
    zero_point: int | None


def as_rows(weight: Tensor, channel_dim: int) -> Tensor:
    """(channels, weights per channel), a copy where the channel dimension is not the first."""
    return weight.movedim(channel_dim, 0).reshape(weight.shape[channel_dim], -1).contiguous()


def from_rows(rows: Tensor, shape: tuple[int, ...], channel_dim: int) -> Tensor:
    """The inverse of `as_rows`."""
    moved = (shape[channel_dim], *shape[:channel_dim], *shape[channel_dim + 1 :])
    return rows.reshape(moved).movedim(0, channel_dim).contiguous()


def search_scale(rows: Tensor, choice: Choice, importance: Tensor | None = None) -> tuple[Tensor, int | None]:
    """The scale, and the zero point where the format has one, of least (weighted) squared error; coarser as chosen.

    :param rows: (channels, n) weights
    :param importance: non-negative weights of the squared errors, same shape (such as the diagonal Fisher), or None
    """
    groups = rows if per_channel(choice) else rows.reshape(1, -1)
    weight = None if importance is None else importance.reshape(groups.shape)
    if has_zero_point(choice):
        return _search_with_zero_point(groups, choice)
    best = _search(groups, choice, weight)
    return (coarser(best, choice.coarse) if can_be_coarse(choice) else best), None


def coarser(scale: Tensor, quarter_octaves: int) -> Tensor:
    """A scale of the grid, so many quarter octaves up."""
    return numbers(exponents_of(scale) + quarter_octaves * PER_OCTAVE // 4)


def _search(groups: Tensor, choice: Choice, weight: Tensor | None) -> Tensor:
    grid = Grid.of(choice, groups.device)
    top = float(grid.levels[-1])
    largest = groups.abs().amax(1, keepdim=True)
    best = on_grid(largest / top)
    error = torch.full_like(best, torch.inf)
    for shrink in SHRINKS:
        scale = on_grid(largest / top * shrink)
        found = _error(groups, grid.nearest(groups / scale) * scale, weight)
        better = found < error
        best, error = torch.where(better, scale, best), torch.where(better, found, error)
    for _ in range(2):  # the scale of least error for the codes found, then the codes for that scale
        units = grid.nearest(groups / best)
        top_sum = _sum(units * groups, weight)
        scale = on_grid(top_sum / _sum(units * units, weight).clamp_min(1e-30))
        found = _error(groups, grid.nearest(groups / scale) * scale, weight)
        better = found < error
        best, error = torch.where(better, scale, best), torch.where(better, found, error)
    return best


def _search_with_zero_point(groups: Tensor, choice: Choice) -> tuple[Tensor, int]:
    top = 2**choice.bits - 1
    low, high = min(float(groups.min()), 0.0), max(float(groups.max()), 0.0)  # zero is always a level
    best: tuple[float, Tensor, int] = (float("inf"), on_grid(groups.new_ones(1, 1)), top // 2)
    for shrink in SHRINKS:
        scale = on_grid(groups.new_full((1, 1), max((high - low) * shrink / top, SCALE_FLOOR)))
        # the middle of the range, the middle of the levels, and its neighbour for an even count
        guesses = {round(-low * shrink / float(scale)), top // 2, top // 2 + 1}
        for zero in sorted(min(max(g, 0), top) for g in guesses):
            found = float(((groups / scale).round().clamp_(-zero, top - zero) * scale - groups).square().sum())
            if found < best[0]:
                best = (found, scale, zero)
    return best[1], best[2]


def _error(groups: Tensor, approximation: Tensor, weight: Tensor | None) -> Tensor:
    return _sum((approximation - groups).square(), weight)


def _sum(values: Tensor, weight: Tensor | None) -> Tensor:
    return (values if weight is None else values * weight).sum(1, keepdim=True)


def quantize(rows: Tensor, choice: Choice, scale: Tensor, zero_point: int | None) -> Quantized:
    """Codes of the nearest levels under a given scale."""
    grid = Grid.of(choice, rows.device)
    units = rows / scale
    if zero_point is not None:
        units = units + zero_point
    return Quantized(choice, grid.codes(units).to(torch.uint8), scale, zero_point)


def dequantize(quantized: Quantized) -> Tensor:
    """Float32 rows: level x scale, the only definition of what a code means."""
    grid = Grid.of(quantized.choice, quantized.codes.device)
    values = grid.levels[quantized.codes.long()]
    if quantized.zero_point is not None:
        values = values - quantized.zero_point
    return values * quantized.scale

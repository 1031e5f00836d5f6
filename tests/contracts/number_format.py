"""What every number format promises. A subclass provides the fixture `choice`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hirelc.compression.fakequant import Quantizer, restore
from hirelc.compression.grid import on_grid
from hirelc.compression.quantize import dequantize, quantize, search_scale
from hirelc.formats import has_zero_point, levels_of, per_channel
from hirelc.policy import Choice

GRID_ERROR = 0.045  # half a step of the grid that scales lie on
CHANNELS, WIDTH = 5, 40


def mean_square(rows: Tensor, choice: Choice, scale: Tensor, zero_point: int | None) -> Tensor:
    error = (dequantize(quantize(rows, choice, scale, zero_point)) - rows).square()
    return error.mean(1, keepdim=True) if per_channel(choice) else error.mean()


def gaussian(seed: int = 0, shift: float = 0.0, spread: float = 0.1) -> Tensor:
    return torch.randn(CHANNELS, WIDTH, generator=torch.Generator().manual_seed(seed)) * spread + shift


class NumberFormatContract:
    @pytest.fixture
    def choice(self) -> Choice:
        raise NotImplementedError

    def test_levels_fit_the_bits(self, choice: Choice) -> None:
        levels = levels_of(choice)
        assert len(levels) <= 2**choice.bits
        assert list(levels) == sorted(set(levels))
        assert 0.0 in levels
        if not has_zero_point(choice):
            assert [-level for level in reversed(levels)] == list(levels)

    def test_every_level_survives_the_file(self, choice: Choice) -> None:
        scale = on_grid(torch.tensor([[0.013]]))
        zero_point = 2 ** (choice.bits - 1) if has_zero_point(choice) else None
        grid = torch.tensor([levels_of(choice)])
        rows = (grid - (zero_point or 0)) * scale
        quantized = quantize(rows, choice, scale, zero_point)
        assert quantized.codes.tolist() == [list(range(grid.numel()))]
        assert torch.equal(dequantize(quantized), rows)

    def test_the_nearest_level_is_taken(self, choice: Choice) -> None:
        """So inside the range the error is at most half of the step around it."""
        rows = gaussian()
        scale, zero_point = search_scale(rows, choice)
        values = dequantize(quantize(rows, choice, scale, zero_point))
        grid = (torch.tensor(levels_of(choice)) - (zero_point or 0)) * scale  # (1 or channels, levels)
        every = (rows.unsqueeze(-1) - grid.unsqueeze(1)).abs()  # distance to each level
        assert torch.allclose((rows - values).abs(), every.min(-1).values, atol=1e-7)
        above = torch.searchsorted(grid.expand(CHANNELS, -1).contiguous(), rows)
        inside = (above > 0) & (above < grid.shape[1])
        wide = grid.expand(CHANNELS, -1)
        step = wide.gather(1, above.clamp(1, grid.shape[1] - 1)) - wide.gather(1, (above - 1).clamp(0, grid.shape[1] - 2))
        assert inside.any()
        assert ((rows - values).abs()[inside] <= step[inside] / 2 + 1e-7).all()

    def test_the_searched_scale_beats_the_largest_value(self, choice: Choice) -> None:
        for seed in range(3):
            rows = gaussian(seed) * torch.logspace(-1, 1, CHANNELS)[:, None]
            rows[0, 0] *= 6  # an outlier
            scale, zero_point = search_scale(rows, choice)
            groups = rows if per_channel(choice) else rows.reshape(1, -1)
            low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
            if has_zero_point(choice):
                naive = on_grid((high - low) / (2**choice.bits - 1))
                naive_zero: int | None = int((-low / naive).round().clamp(0, 2**choice.bits - 1))
            else:
                naive, naive_zero = on_grid(torch.maximum(-low, high) / levels_of(choice)[-1]), None
            found = mean_square(rows, choice, scale, zero_point)
            assert (found <= mean_square(rows, choice, naive, naive_zero) * (1 + 1e-5)).all()

    def test_scales_are_what_the_file_can_hold(self, choice: Choice) -> None:
        scale, zero_point = search_scale(gaussian(), choice)
        assert tuple(scale.shape) == ((CHANNELS, 1) if per_channel(choice) else (1, 1))
        assert torch.equal(on_grid(scale), scale)
        assert (scale > 0).all()
        assert (zero_point is not None) == has_zero_point(choice)
        assert zero_point is None or 0 <= zero_point < 2**choice.bits

    @pytest.mark.parametrize("value", [0.0, 1e-12, 1e-3, -0.5, 3.0, 1e4, -1e30])
    def test_constant_kernels_stay_finite(self, choice: Choice, value: float) -> None:
        rows = torch.full((3, 7), value)
        scale, zero_point = search_scale(rows, choice)
        values = dequantize(quantize(rows, choice, scale, zero_point))
        assert torch.isfinite(values).all()
        assert (values.abs() <= abs(value) * 1.5 + 1e-3).all()
        if value in (1e-3, -0.5, 3.0):
            assert torch.allclose(values, rows, rtol=GRID_ERROR, atol=1e-4)

    def test_one_channel_and_one_weight(self, choice: Choice) -> None:
        rows = torch.tensor([[0.7]])
        values = dequantize(quantize(rows, choice, *search_scale(rows, choice)))
        assert torch.allclose(values, rows, rtol=GRID_ERROR)

    def test_training_sees_what_the_file_holds(self, choice: Choice) -> None:
        for shape, channel_dim in [((6, 4, 3, 3), 0), ((4, 6), 1), ((3, 5, 2), 1)]:
            weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 0.2
            quantizer = Quantizer(weight, channel_dim, choice, weight.square())
            moved = weight + 0.03  # fine-tuning moves weights off the values that the scale was found for
            forward = quantizer(moved)
            assert torch.equal(forward, restore(quantizer.codes(moved), shape, channel_dim))
            assert not torch.equal(forward, moved)

    def test_gradients_pass_straight_through_inside_the_range(self, choice: Choice) -> None:
        weight = gaussian()
        quantizer = Quantizer(weight, 0, choice)
        shift = quantizer.zero_point or 0
        scale = quantizer.stored_scale().detach()
        low, high = (quantizer.grid.levels[0] - shift) * scale, (quantizer.grid.levels[-1] - shift) * scale
        weight[0, :2] = torch.tensor([-1.0, 1.0]) * 100
        weight.requires_grad_(True)
        incoming = torch.arange(weight.numel(), dtype=torch.float32).view_as(weight)
        quantizer(weight).backward(incoming)
        inside = (weight >= low) & (weight <= high)
        assert inside.any()
        assert not inside[0, :2].any()
        assert torch.equal(weight.grad, incoming * inside)

"""What depends on the weights; what holds for each format whatever the weights is in contracts/number_format.py."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hirelc.compression.fakequant import Quantizer
from hirelc.compression.grid import on_grid
from hirelc.compression.quantize import Grid, as_rows, dequantize, from_rows, quantize, search_scale
from hirelc.policy import Choice, Granularity, NumberType

choices = st.builds(
    Choice,
    bits=st.integers(2, 8),
    number_type=st.sampled_from(NumberType),
    granularity=st.sampled_from(Granularity),
)


@settings(max_examples=80, deadline=None)
@given(
    choice=choices,
    shape=st.tuples(st.integers(1, 6), st.integers(1, 12)),
    size=st.floats(-30, 30),
    shift=st.floats(-3, 3),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_no_kernel_breaks_the_search(
    choice: Choice, shape: tuple[int, int], size: float, shift: float, share: float, seed: int
) -> None:
    """Huge, tiny, shifted and mostly-zero kernels: finite, and never worse than all zeros."""
    generator = torch.Generator().manual_seed(seed)
    rows = (torch.randn(shape, generator=generator) + shift) * 10.0**size
    rows *= torch.rand(shape, generator=generator) < share
    scale, zero_point = search_scale(rows, choice)
    quantized = quantize(rows, choice, scale, zero_point)
    values = dequantize(quantized)
    assert torch.isfinite(values).all()
    assert torch.equal(on_grid(scale), scale)
    assert int(quantized.codes.max()) < len(Grid.of(choice).levels)
    assert float((values - rows).double().square().sum()) <= float(rows.double().square().sum()) * 1.001


@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), data=st.data())
def test_rows_and_back(shape: list[int], data: st.DataObject) -> None:
    dim = data.draw(st.integers(0, len(shape) - 1))
    weight = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape)
    rows = as_rows(weight, dim)
    assert rows.shape == (shape[dim], weight.numel() // shape[dim])
    assert torch.equal(rows[0], weight.select(dim, 0).flatten())
    assert torch.equal(from_rows(rows, tuple(shape), dim), weight)


@pytest.mark.parametrize("bits", [3, 4, 6])
def test_a_zero_point_helps_skewed_kernels(bits: int) -> None:
    rows = torch.rand(8, 50, generator=torch.Generator().manual_seed(0)) + 0.01  # all above zero
    scale, zero_point = search_scale(rows, Choice(bits, granularity=Granularity.UNIFORM))
    assert zero_point == 0
    skewed = (dequantize(quantize(rows, Choice(bits, granularity=Granularity.UNIFORM), scale, zero_point)) - rows).square()
    plain = Choice(bits, granularity=Granularity.PER_CHANNEL)
    symmetric = (dequantize(quantize(rows, plain, *search_scale(rows, plain))) - rows).square()
    assert float(skewed.sum()) < 0.5 * float(symmetric.sum())


def test_a_scale_per_channel_helps_uneven_channels() -> None:
    rows = torch.randn(4, 60, generator=torch.Generator().manual_seed(0)) * torch.tensor([[0.01], [0.1], [1.0], [10.0]])
    error = {}
    for granularity in (Granularity.UNIFORM, Granularity.PER_CHANNEL):
        choice = Choice(4, granularity=granularity)
        values = dequantize(quantize(rows, choice, *search_scale(rows, choice)))
        error[granularity] = float(((values - rows) / rows.std(1, keepdim=True)).square().mean())
    assert error[Granularity.PER_CHANNEL] < 0.1 * error[Granularity.UNIFORM]


@pytest.mark.parametrize("kind", list(NumberType))
def test_more_bits_mean_less_error(kind: NumberType) -> None:
    rows = torch.randn(8, 200, generator=torch.Generator().manual_seed(0))
    errors = []
    for bits in range(2, 9):
        choice = Choice(bits, number_type=kind, granularity=Granularity.PER_CHANNEL)
        errors.append(float((dequantize(quantize(rows, choice, *search_scale(rows, choice))) - rows).square().mean()))
    if kind is NumberType.FLOAT:
        errors.pop()  # E4M3 has E3M3's mantissa: its eighth bit buys range, which a bell curve does not need
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.1 > errors[2] > 1e-3 > errors[-1]


def test_weighted_search_lowers_the_weighted_error() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(6, 80, generator=generator)
    weights = torch.rand(6, 80, generator=generator) ** 6
    choice = Choice(3, granularity=Granularity.PER_CHANNEL)

    def loss(importance: torch.Tensor | None) -> torch.Tensor:
        values = dequantize(quantize(rows, choice, *search_scale(rows, choice, importance)))
        return ((values - rows).square() * weights).sum(1)

    assert (loss(weights) <= loss(None) * (1 + 1e-6)).all()
    assert float(loss(weights).sum()) < 0.95 * float(loss(None).sum())


def test_the_grid_never_reaches_zero_or_infinity() -> None:
    found = on_grid(torch.tensor([0.0, 1e-9, 1e9, 0.1]))
    assert (found > 0).all()
    assert torch.isfinite(found).all()
    assert found[3] == on_grid(torch.tensor(0.1))


def test_only_learned_steps_start_from_the_fisher() -> None:
    weight = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    fisher = torch.zeros_like(weight)
    fisher[:, :5] = 1.0
    for granularity in Granularity:
        choice = Choice(2, granularity=granularity)
        same = torch.equal(Quantizer(weight, 0, choice).scale, Quantizer(weight, 0, choice, fisher).scale)
        assert same == (granularity is not Granularity.LEARNED)

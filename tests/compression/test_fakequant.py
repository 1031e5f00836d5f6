from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hirelc.compression.fakequant import Quantizer
from hirelc.compression.quantize import Grid
from hirelc.policy import Choice, Granularity, NumberType


def learned(bits: int = 3, kind: NumberType = NumberType.INT) -> tuple[Quantizer, Tensor]:
    weight = torch.randn(5, 30, generator=torch.Generator().manual_seed(0))
    return Quantizer(weight, 0, Choice(bits, number_type=kind, granularity=Granularity.LEARNED)), weight


@pytest.mark.parametrize("kind", list(NumberType))
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_step_gradient_is_that_of_lsq(bits: int, kind: NumberType) -> None:
    """d value / d scale: level - w/scale inside the range, the end level outside (Esser et al., equation 3)."""
    quantizer, weight = learned(bits, kind)
    incoming = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    quantizer(weight).backward(incoming)
    scale, levels = quantizer.stored_scale().detach(), Grid.of(quantizer.choice).levels
    expected = torch.zeros(5, 1)
    for i, row in enumerate(weight):
        for w, g in zip(row, incoming[i], strict=True):
            units = float(w / scale[i])
            nearest = float(levels[(levels - units).abs().argmin()])
            inside = float(levels[0]) <= units <= float(levels[-1])
            expected[i] += g * (nearest - units if inside else nearest)
    assert torch.allclose(quantizer.scale.grad, expected, atol=1e-4)


def test_beyond_the_range_the_step_gradient_is_the_true_derivative() -> None:
    quantizer, weight = learned()
    with torch.no_grad():
        quantizer.scale.fill_(0.0625)  # 3 levels each side: |w| > 0.1875 is cut off
    cut = torch.where(weight.abs() < 0.25, weight.sign() * 0.25, weight)
    quantizer(cut).sum().backward()
    before = quantizer(cut).sum(1)
    with torch.no_grad():
        quantizer.scale.fill_(0.125)
    assert torch.allclose(quantizer.scale.grad.squeeze(1), (quantizer(cut.sign()).sum(1) - before) / 0.0625, atol=1e-4)


@pytest.mark.parametrize("granularity", [g for g in Granularity if g is not Granularity.LEARNED])
def test_other_steps_are_not_trained(granularity: Granularity) -> None:
    weight = torch.randn(4, 9, requires_grad=True)
    quantizer = Quantizer(weight, 0, Choice(4, granularity=granularity))
    quantizer(weight).sum().backward()
    assert not quantizer.scale.requires_grad
    assert weight.grad is not None


def test_training_a_step_lowers_the_error_that_it_is_trained_on() -> None:
    quantizer, weight = learned(bits=2)
    target = weight * 0.3
    optimizer = torch.optim.Adam([quantizer.scale], 0.01)
    losses = []
    for _ in range(60):
        loss = (quantizer(target) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_a_step_driven_below_zero_stays_storable() -> None:
    quantizer, weight = learned()
    with torch.no_grad():
        quantizer.scale.fill_(-1.0)
    assert (quantizer.stored_scale() > 0).all()
    assert torch.isfinite(quantizer(weight)).all()
    assert (quantizer.codes(weight).scale > 0).all()


def test_half_precision_weights_keep_their_dtype() -> None:
    quantizer, weight = learned()
    assert quantizer(weight.bfloat16()).dtype is torch.bfloat16

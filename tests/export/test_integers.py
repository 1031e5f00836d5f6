from __future__ import annotations

import numpy as np
import pytest
import torch

from hirelc.compression.quantize import as_rows, dequantize, quantize, search_scale
from hirelc.export.integers import FloatWeight, IntegerWeight, as_integers
from hirelc.policy import Choice, Granularity, NumberType

CHOICES = [Choice(b, 1.0, t, g) for b in range(2, 9) for t in NumberType for g in Granularity]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda c: f"{c.bits}-{c.number_type.value}-{c.granularity.value}")
def test_whole_numbers_are_the_same_weights(choice: Choice) -> None:
    weight = torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(0))
    rows = as_rows(weight, 1)
    scale, zero = search_scale(rows, choice)
    quantized = quantize(rows, choice, scale, zero)
    factor = np.array([1.0, 0.5, 3.0, 0.1, 2.0])
    found = as_integers(quantized, (6, 5, 3), 1, factor)
    wide = choice.bits >= 5 and choice.granularity is Granularity.LOG
    wide |= choice.number_type is NumberType.FLOAT and choice.granularity is not Granularity.LOG and choice.bits >= 6
    if isinstance(found, FloatWeight):
        assert wide and found.reason
        return  # a wide format is whole numbers as well while the levels in use are few
    assert found.fits_four_bits == (int(found.values.min()) >= -8 and int(found.values.max()) <= 7 and found.zero_point == 0)
    scales = found.scale.reshape(1, -1, 1).astype(np.float64)
    back = (found.values.astype(np.float64) - found.zero_point) * scales
    wanted = dequantize(quantized).double().numpy() * factor[:, None]
    assert np.allclose(np.moveaxis(back, 1, 0).reshape(5, -1), wanted, rtol=1e-6)


def test_a_negative_factor_turns_the_values_and_not_the_scales() -> None:
    choice = Choice(4)
    rows = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    scale, _ = search_scale(rows, choice)
    found = as_integers(quantize(rows, choice, scale, None), (3, 8), 0, np.array([-2.0, 1.0, 0.0]))
    assert isinstance(found, IntegerWeight) and (found.scale > 0).all()
    plain = as_integers(quantize(rows, choice, scale, None), (3, 8), 0)
    assert isinstance(plain, IntegerWeight)
    assert (found.values[0] == -plain.values[0]).all() and (found.values[1] == plain.values[1]).all()
    assert not found.values[2].any()


def test_two_bits_fit_four_and_e2m1_does_not() -> None:
    rows = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    for choice, fits in ((Choice(2), True), (Choice(4, 1.0, NumberType.FLOAT), False)):
        scale, zero = search_scale(rows, choice)
        found = as_integers(quantize(rows, choice, scale, zero), (4, 50), 0)
        assert isinstance(found, IntegerWeight) and found.fits_four_bits == fits

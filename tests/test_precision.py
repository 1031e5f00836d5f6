"""The ladder of precision: for every format monotone in size and error, and reversible."""

from __future__ import annotations

import itertools

import pytest
import torch

from hirelc.compression.fakequant import Quantizer
from hirelc.compression.rate import zero_order_bits
from hirelc.config import SearchConfig
from hirelc.policy import Choice, Granularity, NumberType
from hirelc.precision import RUNGS, can_be_coarse, highest_rung, lowest_rung, precision_of, with_precision

FORMATS = [Choice(8, 0.5, kind, layout) for kind, layout in itertools.product(NumberType, Granularity)]


@pytest.mark.parametrize("plain", FORMATS, ids=str)
def test_a_rung_up_is_never_smaller_nor_worse(plain: Choice) -> None:
    weight = torch.randn(32, 256, generator=torch.Generator().manual_seed(0))
    bits, errors = [], []
    for rung in range(RUNGS):
        quantizer = Quantizer(weight, 0, with_precision(plain, rung))
        with torch.no_grad():
            errors.append(float((quantizer(weight) - weight).square().sum()))
        bits.append(zero_order_bits(quantizer, weight) / weight.numel())
    assert bits == sorted(bits)
    if plain.granularity is not Granularity.LOG:  # more powers of two are all small: they help hardly
        assert all(better <= 1.05 * worse for worse, better in itertools.pairwise(errors))
    assert 0.01 < bits[0] < 0.5 if can_be_coarse(plain) else bits[0] > 1.0


@pytest.mark.parametrize("plain", FORMATS, ids=str)
def test_precision_is_read_back_and_changes_nothing_else(plain: Choice) -> None:
    for rung in range(RUNGS):
        choice = with_precision(plain, rung)
        assert with_precision(choice, precision_of(choice)) == choice
        assert (choice.keep_ratio, choice.number_type, choice.granularity) == (0.5, plain.number_type, plain.granularity)
        if can_be_coarse(plain):
            assert precision_of(choice) == rung


def test_bits_stand_for_rungs() -> None:
    assert (lowest_rung(2), highest_rung(2), lowest_rung(3), highest_rung(4), highest_rung(8)) == (0, 7, 8, 16, RUNGS - 1)
    assert SearchConfig().min_bits == 2  # nothing is barred by default

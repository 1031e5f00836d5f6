"""The rate term: an estimate of the coded bits that has a gradient, and leads a training to a size."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hirelc.compression.apply import CompressedNetwork, apply
from hirelc.compression.fakequant import Quantizer
from hirelc.compression.fitting import scale_to_bits
from hirelc.compression.rate import AIM, FileGoal, RateTerm, expected_bits, kernel_bits, shares_of, zero_order_bits
from hirelc.network.trace import trace
from hirelc.policy import Choice, Granularity, NumberType, Policy

FORMATS = list(itertools.product((2, 4, 8), NumberType, Granularity))


def weights(rows: int = 6, columns: int = 40, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * torch.rand(rows, 1, generator=generator)


@pytest.mark.parametrize(("bits", "kind", "granularity"), FORMATS)
def test_zero_order_bits_are_the_entropy(bits: int, kind: NumberType, granularity: Granularity) -> None:
    weight = weights()
    quantizer = Quantizer(weight, 0, Choice(bits, 1.0, kind, granularity))
    _, counts = np.unique(quantizer.codes(weight).codes.numpy(), return_counts=True)
    shares = counts / counts.sum()
    assert zero_order_bits(quantizer, weight) == pytest.approx(-(shares * np.log2(shares)).sum() * weight.numel(), rel=1e-9)


@pytest.mark.parametrize(("bits", "kind", "granularity"), FORMATS)
def test_shares_are_smooth_and_sum_to_one(bits: int, kind: NumberType, granularity: Granularity) -> None:
    weight = weights()
    quantizer = Quantizer(weight, 0, Choice(bits, 1.0, kind, granularity))
    shares = shares_of(quantizer, weight)
    assert shares.shape == quantizer.grid.levels.shape
    assert float(shares.sum()) == pytest.approx(1, abs=1e-5) and bool((shares > 0).all())


@pytest.mark.parametrize(("bits", "kind", "granularity"), FORMATS)
def test_the_gradient_is_that_of_finite_differences(bits: int, kind: NumberType, granularity: Granularity) -> None:
    weight = weights().requires_grad_()
    quantizer = Quantizer(weight, 0, Choice(bits, 1.0, kind, granularity))
    costs = -shares_of(quantizer, weight).log2()
    expected_bits(quantizer, weight, costs).backward()
    assert weight.grad is not None
    scale = quantizer.stored_scale().detach()
    units = weight.detach() / scale + (quantizer.zero_point or 0)
    gaps = quantizer.grid.levels.diff().min()
    checked = 0
    for at in itertools.product(range(3), range(0, 40, 5)):
        distance = (units[at] - quantizer.grid.levels).abs().min()
        if distance < 0.2 * gaps:
            continue  # at a level the slope changes
        step = float(0.05 * gaps * scale.expand(6, 40)[at])
        ends = []
        for sign in (1, -1):
            moved = weight.detach().clone()
            moved[at] += sign * step
            ends.append(float(expected_bits(quantizer, moved, costs).detach()))
        difference = (ends[0] - ends[1]) / (2 * step)
        assert float(weight.grad[at]) == pytest.approx(difference, rel=0.05, abs=0.02 * float(costs.max()) / step / 10)
        checked += 1
    assert checked >= 5


def test_on_levels_the_estimate_is_what_the_levels_cost() -> None:
    weight = weights()
    quantizer = Quantizer(weight, 0, Choice(4, granularity=Granularity.PER_CHANNEL))
    codes = quantizer.codes(weight).codes.long()
    costs = -shares_of(quantizer, weight).log2()
    found = expected_bits(quantizer, quantizer(weight), costs)
    assert float(found) == pytest.approx(float(costs[codes].sum()), rel=1e-4)


def test_a_learned_scale_gets_a_gradient() -> None:
    weight = weights()
    quantizer = Quantizer(weight, 0, Choice(4, granularity=Granularity.LEARNED))
    expected_bits(quantizer, weight, -shares_of(quantizer, weight).log2()).backward()
    assert quantizer.scale.grad is not None and bool(quantizer.scale.grad.abs().sum() > 0)


# -- a small training --------------------------------------------------------------------------------------


def made(bits: int = 4, seed: int = 0) -> CompressedNetwork:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 8)).eval()
    spec = trace(network, torch.randn(2, 16))
    policy = Policy.of({k.name: Choice(bits, granularity=Granularity.LEARNED) for k in spec.kernels})
    return apply(network, spec, policy, {k.name: torch.rand(k.shape) for k in spec.kernels})


def goal(bits: float) -> FileGoal:
    """So many bits, in files that hold nothing but codes."""
    return FileGoal(math.ceil(bits / 8 / 0.998), lambda network: math.ceil(kernel_bits(network) / 8))


@pytest.mark.parametrize(("share", "seed", "coarser"), [(0.75, 0, False), (0.5, 1, False), (0.4, 2, True)])
def test_a_training_is_led_to_the_target(share: float, seed: int, coarser: bool) -> None:
    """By the rate term alone, or, where more is to go, from steps that are coarser from the start."""
    compressed, teacher = made(seed=seed), made(8, seed).network
    target, steps = share * kernel_bits(compressed), 300
    if coarser:
        named = dict(compressed.network.named_parameters())
        scale_to_bits(compressed, {name: torch.ones_like(named[name]) for name in compressed.names}, target)
    term = RateTerm(compressed, goal(target), steps)
    optimizer = torch.optim.Adam(compressed.parameters(), 2e-3)
    x = torch.randn(256, 16, generator=torch.Generator().manual_seed(3))
    wanted = teacher(x).detach()
    for step in range(steps):
        loss = nn.functional.mse_loss(compressed(x), wanted)
        rate = term.loss(step)
        optimizer.zero_grad()
        (loss if rate is None else loss + rate).backward()
        optimizer.step()
    assert kernel_bits(compressed) == pytest.approx(AIM * target, rel=0.05)


def test_nothing_is_asked_in_the_warm_up() -> None:
    compressed = made()
    term = RateTerm(compressed, goal(0.5 * kernel_bits(compressed)), 1000)
    assert term.loss(0) is None and term.loss(49) is None and term.loss(50) is not None
    assert not term.reached()
    assert RateTerm(compressed, goal(1.01 * kernel_bits(compressed)), 10).reached()


def test_the_aim_follows_what_the_coder_gains() -> None:
    """A coder that begins to save a tenth leaves a tenth more for the codes."""
    compressed, saved = made(), 0.0
    file = FileGoal(1000, lambda network: math.ceil((1 - saved) * kernel_bits(network) / 8 + 100))
    term = RateTerm(compressed, file, 10)
    before = term.target_bits
    saved = 0.1
    term.reached()
    assert term.target_bits - before == pytest.approx(AIM * 0.1 * kernel_bits(compressed), rel=0.01)


def test_a_known_strength_is_where_the_controller_begins() -> None:
    compressed = made()
    terms = [RateTerm(compressed, replace(goal(0.5 * kernel_bits(compressed)), strength=s), 1000) for s in (0.001, 0.002)]
    pulls = [float(term.loss(50).detach()) for term in terms]
    assert pulls[1] == pytest.approx(2 * pulls[0], rel=0.01)


@pytest.mark.parametrize(("bits", "factor"), [(3.0, 1.0), (1.5, 1.0), (1.0, 1.5), (0.75, 2.0), (0.1, 2.0)])
def test_few_bits_for_each_weight_make_haste(bits: float, factor: float) -> None:
    compressed = made()
    weights = sum(p.numel() for p in compressed.network.parameters() if p.ndim > 1)
    assert goal(bits * weights).haste(compressed) == pytest.approx(factor, rel=0.02)

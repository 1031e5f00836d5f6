"""Codes fitted to a size without training: what steps and rounding reach, and that they spend error where it is cheap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hirelc.compression.apply import CompressedNetwork, apply
from hirelc.compression.fitting import round_to_bits, scale_to_bits
from hirelc.compression.grid import exponents_of
from hirelc.compression.quantize import coarser
from hirelc.compression.rate import kernel_bits, kernels_of, zero_order_bits
from hirelc.network.trace import trace
from hirelc.policy import Choice, Granularity, NumberType, Policy
from measure.small import Tiny, samples

FORMATS = [
    Choice(5, 1.0, NumberType.INT, Granularity.LEARNED),
    Choice(4, 1.0, NumberType.FLOAT, Granularity.PER_CHANNEL),
    Choice(6, 1.0, NumberType.FLOAT, Granularity.UNIFORM),
]


def network(choice: Choice, dim: int = 48) -> tuple[CompressedNetwork, dict[str, Tensor]]:
    """A compressed network, and a Fisher information that differs a thousandfold from kernel to kernel."""
    torch.manual_seed(0)
    plain = Tiny(dim).eval()
    spec = trace(plain, samples(2, 0)[0])
    weights = dict(plain.named_parameters())
    fisher = {k.name: torch.rand(k.shape) * 10.0 ** (i % 4) for i, k in enumerate(spec.kernels)}
    squared = {k.name: weights[k.name].detach().square() for k in spec.kernels}
    return apply(plain, spec, Policy.of({k.name: choice for k in spec.kernels}), squared).eval(), fisher


def error(compressed: CompressedNetwork, before: dict[str, Tensor], fisher: dict[str, Tensor]) -> float:
    with torch.no_grad():
        quantized = compressed.quantized()
        return sum(float(((fisher[n] + fisher[n].mean()) * (quantized[n] - before[n]).square()).sum()) for n in before)


def originals(compressed: CompressedNetwork) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in compressed.network.named_parameters() if n in compressed.names}


@pytest.mark.parametrize("choice", FORMATS, ids=str)
@pytest.mark.parametrize("share", [0.8, 0.6])
def test_steps_reach_the_bits(choice: Choice, share: float) -> None:
    compressed, fisher = network(choice)
    target = share * kernel_bits(compressed)
    scale_to_bits(compressed, fisher, target)
    assert 0.85 * target <= kernel_bits(compressed) <= target


@pytest.mark.parametrize("fit", [scale_to_bits, round_to_bits])
def test_what_fits_is_left_alone(fit: Callable[..., None]) -> None:
    compressed, fisher = network(FORMATS[0])
    before = {n: t.clone() for n, t in compressed.state_dict().items()}
    fit(compressed, fisher, 1.01 * kernel_bits(compressed))
    assert all(torch.equal(t, before[n]) for n, t in compressed.state_dict().items())


def test_coarser_steps_go_where_the_fisher_is_small() -> None:
    compressed, fisher = network(FORMATS[0])
    start = {n: exponents_of(q.scale).float().mean() for n, q in compressed.quantizer_of().items()}
    scale_to_bits(compressed, fisher, 0.6 * kernel_bits(compressed))
    grown = {n: float(exponents_of(q.scale).float().mean() - start[n]) for n, q in compressed.quantizer_of().items()}
    blocks = sorted((n for n in grown if n.startswith("layers")), key=lambda n: float(fisher[n].mean()))
    assert grown[blocks[0]] > grown[blocks[-1]]


def test_one_price_beats_the_same_step_for_all() -> None:
    fitted, fisher = network(FORMATS[0])
    plain, _ = network(FORMATS[0])
    before = originals(fitted)
    target = 0.6 * kernel_bits(fitted)
    scale_to_bits(fitted, fisher, target)
    with torch.no_grad():
        while kernel_bits(plain) > target:
            for quantizer in plain.quantizer_of().values():
                quantizer.scale *= 2 ** (1 / 8)
    assert error(fitted, before, fisher) < 0.5 * error(plain, before, fisher)


@pytest.mark.parametrize("choice", FORMATS[:2], ids=str)  # wide minifloats have no level much cheaper than its neighbour
def test_rounding_reaches_the_bits_and_changes_nothing_else(choice: Choice) -> None:
    compressed, fisher = network(choice)
    others = {n: p.clone() for n, p in compressed.state_dict().items() if n.removeprefix("network.") not in compressed.names}
    target = 0.93 * kernel_bits(compressed)
    round_to_bits(compressed, fisher, target)
    assert 0.9 * target <= kernel_bits(compressed) <= target
    assert all(torch.equal(compressed.state_dict()[n], p) for n, p in others.items())


def test_rounding_moves_weights_onto_levels_that_exist() -> None:
    compressed, fisher = network(FORMATS[1])
    round_to_bits(compressed, fisher, 0.93 * kernel_bits(compressed))
    with torch.no_grad():
        moved = [n for n, value in compressed.quantized().items() if torch.equal(value, originals(compressed)[n])]
    assert len(moved) == len(compressed.names)


def test_a_price_weighs_the_error() -> None:
    """Rounding at one price loses less than sending the smallest weights to zero, at equal bits."""
    fitted, fisher = network(FORMATS[0])
    plain, _ = network(FORMATS[0])
    before = originals(fitted)
    target = 0.9 * kernel_bits(fitted)
    round_to_bits(fitted, fisher, target)
    threshold = 0.0
    with torch.no_grad():
        while kernel_bits(plain) > target:
            threshold += 0.002
            for name, weight in plain.network.named_parameters():
                if name in plain.names:
                    weight.copy_(torch.where(weight.abs() < threshold, 0.0, before[name]))
    assert error(fitted, before, fisher) < error(plain, before, fisher)


def test_formats_with_a_zero_point_keep_their_step() -> None:
    compressed, fisher = network(Choice(4, 1.0, NumberType.INT, Granularity.UNIFORM))
    before = [q.scale.clone() for q in compressed.quantizer_of().values()]
    scale_to_bits(compressed, fisher, 0.5 * kernel_bits(compressed))
    assert all(torch.equal(q.scale, s) for q, s in zip(compressed.quantizer_of().values(), before, strict=True))


def test_no_kernel_starts_dead_however_coarse_its_policy_is() -> None:
    compressed, fisher = network(Choice(4, 1.0, NumberType.INT, Granularity.LEARNED, coarse=4))
    quantizer = next(iter(compressed.quantizer_of().values()))
    quantizer.choice = replace(quantizer.choice, coarse=16)
    with torch.no_grad():
        quantizer.scale.copy_(coarser(quantizer.scale, 12))  # so that all its codes are zeros
    kernels = list(kernels_of(compressed))
    weights, target = sum(w.numel() for _, w in kernels), 0.9 * kernel_bits(compressed)
    assert zero_order_bits(*kernels[0]) < 0.01 * kernels[0][1].numel()
    scale_to_bits(compressed, fisher, target)
    assert zero_order_bits(*kernels[0]) > 0.25 * target / weights * kernels[0][1].numel()
    assert kernel_bits(compressed) <= target


def test_rounding_takes_no_kernel_apart() -> None:
    compressed, fisher = network(Choice(4, 1.0, NumberType.INT, Granularity.LEARNED, coarse=4))
    before = [zero_order_bits(*kernel) for kernel in kernels_of(compressed)]
    round_to_bits(compressed, fisher, 0.8 * kernel_bits(compressed))
    left = [zero_order_bits(*kernel) / bits for kernel, bits in zip(kernels_of(compressed), before, strict=True)]
    assert kernel_bits(compressed) <= 0.8 * sum(before) and min(left) >= 0.55  # twice the average's loss, and no more


@pytest.mark.parametrize("trained", [False, True])
def test_a_sparse_kernel_is_revived_unless_training_made_it_so(trained: bool) -> None:
    """A policy's coarser step that leaves next to nothing is taken back before training, and left alone after it."""
    compressed, fisher = network(replace(FORMATS[0], bits=4, coarse=15))
    for quantizer in compressed.quantizer_of().values():
        quantizer.trained = trained
    before = {name: q.scale.detach().clone() for name, q in compressed.quantizer_of().items()}
    weights = sum(w.numel() for _, w in kernels_of(compressed))
    scale_to_bits(compressed, fisher, 2.5 * weights)
    same = [torch.equal(q.scale, before[name]) for name, q in compressed.quantizer_of().items()]
    assert all(same) if trained else not any(same)

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hirelc.compression.fakequant import Quantizer
from hirelc.compression.prune import select
from hirelc.measure.proxy import ANCHOR_KEEPS, ANCHORS, JOINT_KEEP, LogitProxy
from hirelc.measure.sensitivity import fisher_sensitivity
from hirelc.network.calling import call
from hirelc.network.surgery import masked_state
from hirelc.network.trace import trace
from hirelc.policy import Choice, Granularity, NumberType
from hirelc.precision import with_precision
from hirelc.task import CLASSIFICATION
from measure.small import Tiny, data, samples, tiny

KERNEL = "layers.0.0.weight"


@pytest.fixture(scope="module")
def network() -> Tiny:
    return tiny()


@pytest.fixture(scope="module")
def proxy(network: Tiny) -> LogitProxy:
    inputs, _ = samples(64, 9)
    spec = trace(network, inputs)
    fisher = fisher_sensitivity(network, spec, data(), CLASSIFICATION, 64, seed=0).fisher
    importance = {name: fisher[name] * dict(network.named_parameters())[name].detach().square() for name in fisher}
    return LogitProxy(network, spec, inputs, importance, fisher)


def forward(proxy: LogitProxy, network: Tiny, state: dict[str, torch.Tensor]) -> float:
    """The definition, written out."""
    with torch.no_grad():
        plain = network(proxy.inputs)
        moved = call(network, proxy.inputs, state)
    return float((plain - moved).square().mean() / plain.var())


@pytest.mark.parametrize("rung", ANCHORS)
def test_an_anchor_of_quantization_is_a_forward_pass(proxy: LogitProxy, network: Tiny, rung: int) -> None:
    choice = with_precision(Choice(granularity=Granularity.LEARNED), rung)
    weight = dict(network.named_parameters())[KERNEL].detach()
    quantized = Quantizer(weight, 0, choice, proxy.fisher[KERNEL])(weight).detach()
    expected = forward(proxy, network, {KERNEL: quantized})
    assert expected > 0
    assert proxy.distortion([KERNEL], [choice]) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("keep", ANCHOR_KEEPS)
def test_an_anchor_of_pruning_is_a_forward_pass(proxy: LogitProxy, network: Tiny, keep: float) -> None:
    choices = {k.name: Choice(8, keep if k.name == KERNEL else 1.0) for k in proxy.spec.kernels}
    state = masked_state(network, proxy.spec, select(proxy.spec, choices, proxy.importance))
    expected = forward(proxy, network, state)
    pruned = proxy.distortion([KERNEL], [Choice(8, keep)]) - proxy.distortion([KERNEL], [Choice(8, 1.0)])
    assert pruned >= expected * 0.999  # a later anchor never counts less than an earlier one
    if keep == ANCHOR_KEEPS[0]:
        assert pruned == pytest.approx(expected, rel=1e-3)


def test_pruning_and_quantization_together_are_measured_once(proxy: LogitProxy, network: Tiny) -> None:
    choice = proxy.joint(KERNEL)
    choices = {k.name: replace(Choice(), keep_ratio=JOINT_KEEP if k.name == KERNEL else 1.0) for k in proxy.spec.kernels}
    state = dict(masked_state(network, proxy.spec, select(proxy.spec, choices, proxy.importance)))
    gone = (state[KERNEL] == 0).all(1, keepdim=True)
    weight = proxy.weights[KERNEL]
    quantized = Quantizer(weight, 0, replace(choice, keep_ratio=1.0), proxy.fisher[KERNEL])(weight).detach()
    expected = forward(proxy, network, {**state, KERNEL: torch.where(gone, 0.0, quantized)})
    assert proxy.distortion([KERNEL], [choice]) == pytest.approx(expected, rel=0.01)
    alone = [replace(choice, keep_ratio=1.0), Choice(8, JOINT_KEEP)]
    assert sum(proxy.distortion([KERNEL], [part]) for part in alone) != pytest.approx(expected, rel=0.01)  # they do not add up


def test_nothing_changed_is_no_distortion(proxy: LogitProxy) -> None:
    assert proxy.network_distortion({}) == 0.0
    assert proxy.network_distortion(proxy.weights) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("granularity", [Granularity.PER_CHANNEL, Granularity.LEARNED])
def test_more_bits_and_more_channels_never_cost(proxy: LogitProxy, granularity: Granularity) -> None:
    by_bits = [proxy.distortion([KERNEL], [Choice(bits, 1.0, NumberType.INT, granularity)]) for bits in range(2, 9)]
    assert by_bits == sorted(by_bits, reverse=True)
    assert by_bits[0] > 5 * by_bits[3] > 0
    by_keep = [proxy.distortion([KERNEL], [Choice(8, keep)]) for keep in (0.1, 0.3, 0.5, 0.6, 0.8, 0.9, 1.0)]
    assert by_keep == sorted(by_keep, reverse=True)


def test_distortions_add_up_over_kernels(proxy: LogitProxy) -> None:
    names = proxy.spec.blocks[0].kernels
    choices = [Choice(3, 0.5), Choice(4, 0.75)]
    parts = [proxy.distortion([name], [choice]) for name, choice in zip(names, choices, strict=True)]
    assert proxy.distortion(names, choices) == pytest.approx(sum(parts))


def test_no_search_step_costs_a_forward_pass(proxy: LogitProxy) -> None:
    before = proxy.forward_passes
    proxy.distortion([KERNEL], [Choice(5, 0.6, NumberType.FLOAT, Granularity.LOG)])
    assert proxy.forward_passes == before


def test_a_broken_network_counts_as_far_away(proxy: LogitProxy) -> None:
    assert proxy.network_distortion({KERNEL: torch.full((24, 12), float("nan"))}) == 1e6

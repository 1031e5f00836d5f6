"""A candidate brought back is the candidate."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hirelc import candidates
from hirelc.artifact.container import pack, read
from hirelc.candidates import FOLLOWED, HEAD_ROOM, Bench
from hirelc.compression.apply import CompressedNetwork
from hirelc.compression.rate import kernel_bits
from hirelc.config import TrainConfig
from hirelc.measure.finetune import Diverged, Trained, Trainer
from hirelc.network.trace import trace
from hirelc.policy import Choice, Granularity, NumberType, Policy
from hirelc.task import CLASSIFICATION
from measure.small import data, samples, tiny


def ready(choice: Choice) -> tuple[Bench, Policy]:
    network = tiny()
    spec = trace(network, samples(2, 0)[0])
    config = TrainConfig(images=2000, batch_size=32, precision="fp32", learning_rate=0.05)
    trainer = Trainer(network, data(), data(96, 1), CLASSIFICATION, config, seed=0)
    importance = {k.name: torch.rand(k.shape, generator=torch.Generator().manual_seed(i)) for i, k in enumerate(spec.kernels)}
    bench = Bench(network, spec, trainer, importance, importance, baseline=90.0)
    return bench, Policy.of({k.name: choice for k in spec.kernels})


@torch.no_grad()
def shift(network: torch.nn.Module, by: float) -> None:
    for parameter in network.parameters():
        parameter.add_(by)


@pytest.mark.parametrize("activations", [False, True])
def test_a_revived_candidate_packs_to_the_same_bytes(activations: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # `uniform` integers carry a zero point that was found on the weights of that moment
    bench, policy = ready(Choice(4, 0.75, NumberType.INT, Granularity.UNIFORM))
    bench.calibration = samples(64, 5)[0] if activations else None
    shift(bench.current, 0.2)  # as if a long training had moved them
    monkeypatch.setattr(bench, "_started", lambda policy, target: bench._applied(bench.current, policy))
    _, candidate = bench.measure(policy, 10_000, 600, "moved")
    assert candidate is not None
    assert bool(read(candidate.data).activations) == activations
    assert pack(bench.revive(candidate)) == candidate.data


@pytest.mark.parametrize("ruined", [False, True])
def test_a_fine_tune_begins_with_the_weights_that_serve_its_policy_best(ruined: bool) -> None:
    bench, policy = ready(Choice(2, granularity=Granularity.LEARNED))
    first, _ = bench.measure(policy, 10_000, 600, "first")
    assert bench.trained is not None
    if ruined:
        shift(bench.current, 3.0)
    started = dict(bench._started(policy, 10_000).network.named_parameters())
    wanted = dict((bench.original if ruined else bench.current).named_parameters())
    assert all(torch.equal(parameter, wanted[name]) for name, parameter in started.items())
    assert first.accuracy > 60


def test_a_file_that_came_out_too_long_is_rounded_unless_that_costs_too_much() -> None:
    bench, policy = ready(Choice(6, granularity=Granularity.LEARNED))
    _, candidate = bench.measure(policy, 10_000, 600, "a")
    assert candidate is not None
    target = round(0.9 * len(candidate.data))
    compressed = bench.revive(candidate)
    assert bench.rounded(compressed, target, -100.0) == candidate.data == pack(compressed)
    shorter = bench.rounded(compressed, target, 100.0)
    assert len(shorter) <= target and shorter == pack(compressed)


@pytest.mark.parametrize(("strength", "eased"), [(2.0, True), (0.5, False)])
def test_weights_that_a_strong_rate_term_held_go_on_with_coarser_steps(
    strength: float, eased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, policy = ready(Choice(6, granularity=Granularity.LEARNED))
    _, candidate = bench.measure(policy, 10_000, 600, "first")
    assert candidate is not None
    target = len(candidate.data)  # as it is, it fits
    bits: list[float] = []

    def watched(trainer: Trainer, student: CompressedNetwork, images: int, **settings: Any) -> Trained:
        bits.append(kernel_bits(student))
        raise Diverged("seen enough")

    monkeypatch.setattr(Trainer, "finetune", watched)
    bench.strength = strength
    bench.measure(policy, target, 32 * FOLLOWED, "second", start=candidate)
    before = kernel_bits(bench.revive(candidate))
    assert bits[0] < 0.97 * before if eased else bits[0] == before


def test_a_fine_tune_from_the_original_has_head_room_whatever_the_rate_term_was(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, policy = ready(Choice(6, granularity=Granularity.LEARNED))
    compressed, goal = bench._applied(bench.original, policy), bench._goal(3_000)
    seen: list[float] = []
    monkeypatch.setattr(candidates, "scale_to_bits", lambda network, importance, bits: seen.append(bits))
    monkeypatch.setattr(Trainer, "finetune", lambda trainer, student, images, **settings: None)
    bench.strength = 2.0
    bench.finetune(compressed, 3_000, 32 * FOLLOWED, name="first")
    assert seen == [HEAD_ROOM * goal.kernel_bits(compressed)]

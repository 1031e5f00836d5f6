"""A candidate brought back is the candidate."""

from __future__ import annotations

import pytest
import torch

from hirelc.artifact.container import pack, read
from hirelc.candidates import Bench
from hirelc.config import TrainConfig
from hirelc.measure.finetune import Trainer
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

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


@pytest.mark.parametrize("activations", [False, True])
def test_a_revived_candidate_packs_to_the_same_bytes(activations: bool) -> None:
    # `uniform` integers carry a zero point that was found on the weights of that moment
    network = tiny()
    spec = trace(network, samples(2, 0)[0])
    config = TrainConfig(images=2000, batch_size=32, precision="fp32", learning_rate=0.05)
    trainer = Trainer(network, data(), data(96, 1), CLASSIFICATION, config, seed=0)
    importance = {k.name: torch.rand(k.shape, generator=torch.Generator().manual_seed(i)) for i, k in enumerate(spec.kernels)}
    bench = Bench(network, spec, trainer, importance, importance, baseline=90.0)
    bench.calibration = samples(64, 5)[0] if activations else None
    policy = Policy.of({k.name: Choice(4, 0.75, NumberType.INT, Granularity.UNIFORM) for k in spec.kernels})
    with torch.no_grad():
        for parameter in bench.current.parameters():  # as if a long training had moved them
            parameter.add_(0.2)
    _, candidate = bench.measure(policy, 10_000, 600, "moved")
    assert candidate is not None
    assert bool(read(candidate.data).activations) == activations
    assert pack(bench.revive(candidate)) == candidate.data

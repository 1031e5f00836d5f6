from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import functional_call, grad, vmap

from hirelc.batches import TensorBatches
from hirelc.errors import DataError
from hirelc.measure.sensitivity import Sensitivity, fisher_sensitivity, normalise
from hirelc.network.trace import trace
from hirelc.task import CLASSIFICATION
from measure.small import Tiny, data, samples, tiny

SAMPLES = 48


@pytest.fixture(scope="module")
def network() -> Tiny:
    return tiny()


def sensitivity(network: Tiny, batches: TensorBatches, count: int = SAMPLES) -> Sensitivity:
    return fisher_sensitivity(network, trace(network, torch.randn(2, 6)), batches, CLASSIFICATION, count, seed=0)


def per_sample(network: Tiny, name: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    def loss(weight: torch.Tensor, one: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(functional_call(network, {name: weight}, (one[None],)), target[None])

    return vmap(grad(loss), (None, 0, 0))(dict(network.named_parameters())[name].detach(), x, y)


@pytest.mark.parametrize("name", ["stem.weight", "layers.0.0.weight", "layers.1.4.weight", "head.weight"])
def test_the_fisher_is_the_mean_of_squared_per_sample_gradients(network: Tiny, name: str) -> None:
    x, y = samples(SAMPLES, 5)
    found = sensitivity(network, TensorBatches(x, y, batch_size=10))
    gradients = per_sample(network, name, x, y)
    assert found.samples == SAMPLES
    assert torch.allclose(found.fisher[name], gradients.square().mean(0), rtol=1e-3, atol=1e-9)
    assert not torch.allclose(found.fisher[name], gradients.mean(0).square(), rtol=0.5)


def test_batching_does_not_matter(network: Tiny) -> None:
    x, y = samples(SAMPLES, 5)
    small, large = (sensitivity(network, TensorBatches(x, y, batch_size=size)) for size in (7, 48))
    assert all(torch.allclose(small.fisher[name], large.fisher[name], rtol=1e-4, atol=1e-10) for name in small.fisher)


def test_the_network_is_left_as_it_was(network: Tiny) -> None:
    network.train()
    network.head.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    try:
        sensitivity(network, data())
        assert network.training
        assert not network.head.weight.requires_grad
        assert network.stem.weight.requires_grad
        assert all(p.grad is None for p in network.parameters())
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    finally:
        network.head.weight.requires_grad_(True)
        network.eval()


def test_blocks_are_the_sums_of_their_kernels(network: Tiny) -> None:
    found = sensitivity(network, data())
    sums = [sum(float(found.fisher[f"layers.{i}.{j}.weight"].sum()) for j in (0, 4)) for i in (0, 1)]
    assert list(found.blocks) == normalise(sums)
    assert set(found.kernels) == set(found.fisher)
    assert {min(found.kernels.values()), max(found.kernels.values())} == {0.0, 1.0}


def test_samples_without_a_finite_gradient_are_left_out(network: Tiny) -> None:
    x, y = samples(20, 1)
    clean = sensitivity(network, TensorBatches(x[:19], y[:19], batch_size=20), 19)
    x[19] = float("nan")
    found = sensitivity(network, TensorBatches(x, y, batch_size=20), 20)
    assert all(torch.allclose(found.fisher[name], clean.fisher[name]) for name in clean.fisher)
    with pytest.raises(DataError, match="no sample gives a finite gradient"):
        sensitivity(network, TensorBatches(torch.full((8, 6), float("nan")), torch.zeros(8, dtype=torch.long)), 8)


@given(st.lists(st.floats(0, 1e30), min_size=1, max_size=20))
def test_normalised_sums_lie_between_zero_and_one_in_order(sums: list[float]) -> None:
    found = normalise(sums)
    assert all(0 <= value <= 1 for value in found)
    order = sorted(range(len(sums)), key=sums.__getitem__)
    assert [found[i] for i in order] == sorted(found)

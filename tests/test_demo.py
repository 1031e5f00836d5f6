from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hirelc.data import Request, Splits, make_splits
from hirelc.demo import DEMO_NETWORKS, train_baseline
from hirelc.measure.evaluate import accuracy
from hirelc.task import CLASSIFICATION


@pytest.fixture
def halves() -> Splits:
    """Images whose bright half tells their class, so that a few steps suffice."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(256, 1, 28, 28, generator=generator) * 0.1
    y = torch.arange(256) % 2
    x[y == 0, :, :14] += 1
    x[y == 1, :, 14:] += 1
    return make_splits((x, y), (x[:64], y[:64]), request=Request(batch_size=16), description="halves")


@pytest.mark.parametrize("factory", DEMO_NETWORKS.values(), ids=DEMO_NETWORKS.keys())
def test_networks_are_small_and_take_images(factory: Callable[[], nn.Module]) -> None:
    network = factory()
    assert 150_000 < sum(tensor.numel() for tensor in network.parameters()) < 300_000
    assert network(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("factory", DEMO_NETWORKS.values(), ids=DEMO_NETWORKS.keys())
def test_training_learns_repeats_and_is_kept(factory: Callable[[], nn.Module], halves: Splits, tmp_path: Path) -> None:
    cache = tmp_path / "original.safetensors"
    before = torch.get_rng_state()
    network = train_baseline(factory, halves, seed=1, images=16 * 60, cache=cache)
    assert torch.equal(torch.get_rng_state(), before)
    assert not network.training and accuracy(network, halves.validation, CLASSIFICATION) > 90
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in network.state_dict().values())
    again = train_baseline(factory, halves, seed=1, images=16 * 60)
    kept = load_file(cache)
    for name, tensor in weights(network).items():
        assert torch.equal(tensor, again.state_dict()[name]) and torch.equal(tensor, kept[name])


def test_kept_weights_are_used_only_when_they_fit(halves: Splits, tmp_path: Path) -> None:
    cache = tmp_path / "original.safetensors"
    train_baseline(DEMO_NETWORKS["residual-net"], halves, images=32, cache=cache)
    stored = cache.read_bytes()
    train_baseline(DEMO_NETWORKS["residual-net"], halves, seed=5, images=64, cache=cache)
    assert cache.read_bytes() == stored
    for unfit in (b"damaged", stored):
        cache.write_bytes(unfit)
        train_baseline(DEMO_NETWORKS["vision-transformer"], halves, images=32, cache=cache)
        assert cache.read_bytes() not in (b"damaged", stored)

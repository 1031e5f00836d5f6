from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from hirelc.measure.entrance import Entrances
from measure.small import samples, tiny

X, _ = samples(16, 3)
NAMES = ["layers.0", "layers.1", "layers.2"]


class Chain(nn.Module):
    """Three blocks; `step` says how one follows on another."""

    def __init__(
        self, step: Callable[[nn.Module, Tensor], Tensor] = lambda layer, x: x + layer(x), shared: bool = False
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(6, 8)
        made = [nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(3)]
        self.layers = nn.ModuleList([made[0]] * 3 if shared else made)
        self.step, self.runs = step, 0
        for layer in self.layers:
            layer[0].register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.runs += 1

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = self.step(layer, x)
        return x.sum(1)


def recorded(network: nn.Module, names: list[str]) -> Entrances:
    with torch.inference_mode():
        return Entrances(network.eval(), names, lambda: network(X))


def moved(network: nn.Module, name: str) -> dict[str, Tensor]:
    return {name: 1.1 * dict(network.named_parameters())[name].detach()}


@pytest.mark.parametrize("index", range(3))
def test_passes_from_a_block_are_whole_passes_to_the_bit(index: int) -> None:
    network = Chain()
    entrances = recorded(network, NAMES)
    state = moved(network, f"layers.{index}.0.weight")
    with torch.inference_mode():
        expected = functional_call(network, state, (X,))
        network.runs = 0
        with entrances.before(state):
            assert torch.equal(functional_call(network, state, (X,)), expected)
        assert entrances.usable and network.runs == 3 - index
        network.runs = 0
        network(X)
    assert network.runs == 3 and all("forward" not in vars(layer) for layer in network.layers)


def test_a_change_outside_the_blocks_makes_the_pass_whole() -> None:
    network = Chain()
    entrances = recorded(network, NAMES)
    state = moved(network, "stem.weight") | moved(network, "layers.2.0.weight")
    network.runs = 0
    with torch.inference_mode(), entrances.before(state):
        functional_call(network, state, (X,))
    assert network.runs == 3


def test_a_tensor_with_two_names_counts_where_it_stands_first() -> None:
    network = Chain()
    network.layers[2][0].weight = network.layers[0][0].weight
    entrances = recorded(network, NAMES)
    state = moved(network, "layers.0.0.weight")
    with torch.inference_mode():
        expected = functional_call(network, state, (X,))
        with entrances.before(["layers.2.0.weight"]):
            assert torch.equal(functional_call(network, state, (X,)), expected)


def in_place(layer: nn.Module, x: Tensor) -> Tensor:
    x = layer(x)
    x += 1
    return x


def at_random(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x) + torch.rand(8)


@pytest.mark.parametrize(
    "network",
    [Chain(in_place), Chain(at_random), Chain(shared=True), Chain(lambda layer, x: layer(layer(x)))],
    ids=["outputs changed in place", "random numbers", "one block thrice", "called twice"],
)
def test_other_networks_are_left_alone(network: Chain) -> None:
    entrances = recorded(network, NAMES)
    assert not entrances.usable
    with torch.inference_mode():
        network.runs = 0
        network(X)
        whole, network.runs = network.runs, 0
        with entrances.before(["layers.2.0.weight"]):
            network(X)
    assert network.runs == whole >= 3


def test_a_forward_of_its_own_comes_back() -> None:
    network = tiny(trained=False)
    own = network.layers[0].forward
    network.layers[0].forward = own
    entrances = recorded(network, ["layers.0", "layers.1"])
    with torch.inference_mode(), entrances.before(["layers.1.0.weight"]):
        network(X)
    assert vars(network.layers[0])["forward"] is own

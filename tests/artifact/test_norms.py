"""BatchNorms as the file holds them: a factor and a shift per channel, rounded so that the channels stay where they are."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from hirelc.artifact.container import pack, read
from hirelc.artifact.load import build
from hirelc.compression.apply import apply
from hirelc.network.trace import trace
from hirelc.policy import Choice, Granularity, Policy


def outputs_through_a_file(network: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the network with quantized kernels, and of the one that is read back."""
    spec = trace(network, inputs)
    squared = {k.name: network.get_parameter(k.name).detach().square() for k in spec.kernels}
    policy = Policy.of({k.name: Choice(8, granularity=Granularity.LEARNED) for k in spec.kernels})
    compressed = apply(network, spec, policy, squared).eval()
    with torch.no_grad():
        return compressed(inputs), build(read(pack(compressed)), copy.deepcopy(network))(inputs)


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 24, 3, bias=False), nn.BatchNorm2d(24))


def settle(network: nn.Sequential, inputs: torch.Tensor) -> None:
    """Statistics as training would leave them."""
    network[1].momentum = None
    network.train()
    with torch.no_grad():
        network(inputs)
    network.eval()


def test_a_large_mean_moves_no_channel(network: nn.Sequential) -> None:
    """The mean is forty times the deviation: a factor that is off by a twentieth would move it by two deviations."""
    inputs = 10 + 0.25 * torch.randn(64, 3, 8, 8)
    settle(network, inputs)
    wanted, found = outputs_through_a_file(network, inputs)
    assert float((found - wanted).mean((0, 2, 3)).abs().max()) < 0.15  # of a deviation


def test_a_channel_that_running_statistics_still_remember_costs_nothing_either(network: nn.Sequential) -> None:
    """A hundred batches after its weights went, a channel's variance is not zero yet, its factor a hundred times too large."""
    inputs = torch.randn(64, 3, 8, 8)
    settle(network, inputs)
    with torch.no_grad():
        network[0].weight[5] = 0
        network[1].running_mean[5], network[1].running_var[5] = 1e-5, 2e-5
    wanted, found = outputs_through_a_file(network, inputs)
    assert float((found - wanted).square().mean((0, 2, 3)).sqrt().max()) < 0.1


def test_a_channel_that_died_costs_the_others_nothing(network: nn.Sequential) -> None:
    """Its factor would be hundreds of times that of the others, and the step of them all follows from their spread."""
    inputs = torch.randn(64, 3, 8, 8)
    with torch.no_grad():
        network[0].weight[5] = 0
    settle(network, inputs)
    nn.init.uniform_(network[1].bias)
    assert float((network[1].weight / (network[1].running_var + network[1].eps).sqrt()).detach().max()) > 300
    wanted, found = outputs_through_a_file(network, inputs)
    error = (found - wanted).square().mean((0, 2, 3)).sqrt()
    assert float(error[torch.arange(24) != 5].max()) < 0.1 and float(error[5]) < 0.1

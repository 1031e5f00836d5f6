"""A factory whose inner width differs: slices of the file's width would fit it, and must not be taken."""

from __future__ import annotations

import copy

import pytest
import torch

from hirelc.artifact.container import pack
from hirelc.artifact.load import load
from hirelc.compression.apply import apply
from hirelc.errors import FormatError
from hirelc.network.spec import Pruning
from hirelc.network.trace import trace
from hirelc.policy import Choice, Policy
from measure.small import Tiny, samples


def wider(network: Tiny) -> Tiny:
    network = copy.deepcopy(network)
    first, norm, last = (network.layers[0][i] for i in (0, 1, 4))
    for module, name, dim in [(first, "weight", 0), (first, "bias", 0), (last, "weight", 1)] + [
        (norm, n, 0) for n in ("weight", "bias", "running_mean", "running_var")
    ]:
        tensor = getattr(module, name)
        doubled = torch.cat([tensor, tensor], dim)
        setattr(module, name, torch.nn.Parameter(doubled) if name in module._parameters else doubled)
    return network


def test_a_wider_coupled_dimension_is_another_network() -> None:
    torch.manual_seed(0)
    network = Tiny().eval()
    spec = trace(network, samples(2, 0)[0])
    assert any(k.pruning is Pruning.COUPLED for k in spec.kernels)
    weights = dict(network.named_parameters())
    squared = {k.name: weights[k.name].detach().square() for k in spec.kernels}
    data = pack(apply(network, spec, Policy.of({k.name: Choice(4, 0.5) for k in spec.kernels}), squared).eval())
    assert load(data, Tiny)
    with pytest.raises(FormatError, match=r"layers\.0\.0\.weight.*\(48, 12\).*\(24, 12\)"):
        load(data, lambda: wider(network))

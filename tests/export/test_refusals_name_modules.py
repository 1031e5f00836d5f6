"""A network that has no ONNX form is refused with the module that stands in the way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hirelc.errors import NetworkError
from hirelc.export.tracing import export_graph


class Bessel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


class Deciding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else -x


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Bessel, r"bessel_j0, called in 1\.0, has no ONNX form"),
        (Deciding, r"cannot follow the network in 1\.0 \(Deciding\), .*torch\.where"),
    ],
)
def test_the_module_is_named(part: type[nn.Module], message: str) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Sequential(part())).eval()
    with pytest.raises(NetworkError, match=message):
        export_graph(network, torch.ones(2, 4), 21)

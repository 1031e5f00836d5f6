"""Networks as torch.export follows them: those that ask for the length of a batch need its strict way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hirelc.common_benchmark import benchmark_factory
from hirelc.errors import NetworkError
from hirelc.export.tracing import export_graph

NETWORKS = """
from torch import nn

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x.reshape(len(x), -1))
"""


@pytest.mark.slow
def test_a_network_from_a_file_may_ask_for_the_length_of_its_batch(tmp_path: Path) -> None:
    (tmp_path / "networks.py").write_text(NETWORKS)
    network = benchmark_factory(tmp_path, "tokens")().eval()
    model = export_graph(network, torch.randn(2, 2, 2), 21)
    (output,) = model.graph.output
    assert output.type.tensor_type.shape.dim[0].dim_param  # any number of samples


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else -x


def test_what_neither_way_follows_is_said_for_both() -> None:
    with pytest.raises(NetworkError, match=r"cannot follow.*\(a branch that depends on the data.*strict way says") as caught:
        export_graph(Branches().eval(), torch.randn(2, 3), 21)
    assert "\n" not in str(caught.value)

"""`hirelc show` and `hirelc.open_file`: a file, looked into without its network."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import hirelc
from hirelc.artifact.container import pack
from hirelc.cli import app
from hirelc.compression.apply import apply
from hirelc.network.trace import trace
from hirelc.policy import Choice, Granularity, NumberType, Policy


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*[nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(2)])
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    network = Net().eval()
    spec = trace(network, torch.randn(4, 8), blocks=r"body\.\d")
    first = next(k.name for k in spec.kernels if k.pruning == "rows")
    policy = Policy.of(
        {
            k.name: Choice(2 + i, 0.5 if k.name == first else 1.0, NumberType.INT, Granularity.PER_CHANNEL)
            for i, k in enumerate(spec.kernels)
        }
    )
    importance = {k.name: dict(network.named_parameters())[k.name].detach() ** 2 for k in spec.kernels}
    compressed = apply(network, spec, policy, importance).eval()
    path = tmp_path / "net.hirelc"
    path.write_bytes(pack(compressed))
    return path, compressed, first


def test_open_file_shows_what_was_stored(file):
    path, compressed, first = file
    view = hirelc.open_file(path)
    weights = dict(compressed.network.named_parameters())
    for name, quantizer in compressed.quantizer_of().items():
        stored = quantizer.codes(weights[name])
        kernel = view.kernels[name]
        assert np.array_equal(kernel.codes, stored.codes.numpy())
        assert np.array_equal(kernel.scales, stored.scale.detach().numpy().ravel())
        assert 0 < kernel.entropy <= kernel.choice.bits
        assert kernel.entropy * kernel.weights <= kernel.coded_bits + 1e-6  # no model beats the kernel's own shares
    assert view.kernels[first].mask is not None and view.kernels[first].mask.sum() == view.kernels[first].shape[0]
    assert sum(view.parts.values()) == pytest.approx(view.size_bytes, abs=12)  # the stream ends on a whole word
    assert set(view.rest) == {t.name for t in compressed.spec.rest}


def test_show_prints_every_kernel(file):
    path, compressed, first = file
    lines = CliRunner().invoke(app, ["show", str(path)]).stdout.splitlines()
    for name in compressed.names:
        assert any(line.startswith(name) for line in lines)
    data = json.loads(CliRunner().invoke(app, ["show", str(path), "--json"]).stdout)
    assert data["size_bytes"] == path.stat().st_size
    assert sum(k["size_bytes"] for k in data["kernels"]) < data["size_bytes"]
    assert "/" in next(k for k in data["kernels"] if k["name"] == first)["channels_kept"]


def test_show_of_something_else_is_one_clear_line(tmp_path):
    path = tmp_path / "no.hirelc"
    path.write_bytes(b"nothing of the kind")
    done = CliRunner().invoke(app, ["show", str(path)])
    assert done.exit_code == 2 and "not a .hirelc file" in done.stderr and str(path) in done.stderr

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from small import compressed, exported, more
from torch import Tensor, nn

import hirelc.export.onnx as exporting
from hirelc.artifact.container import pack
from hirelc.batches import TensorBatches
from hirelc.compression.activations import Observed, observe
from hirelc.compression.apply import apply
from hirelc.errors import DataError, FormatError, NetworkError, RunError
from hirelc.export.onnx import Settings, export_network, export_onnx
from hirelc.export.parity import check_parity, compare_layers
from hirelc.export.runtime import run, session
from hirelc.export.tracing import export_graph, run_network
from hirelc.network.trace import trace
from hirelc.policy import Choice, Granularity, NumberType, Policy
from zoo import BY_NAME, build


@pytest.mark.parametrize("name", ["resnet-basic", "mobilenet", "vit-fused", "unet"])
def test_the_graph_computes_what_the_network_does(name: str) -> None:
    model, table, parity, network = exported(name)
    onnx.checker.check_model(model, full_check=True)
    inputs = more(BY_NAME[name].inputs())  # another number of samples than it was exported with
    wanted = run_network(network, inputs)
    found = run(session(model.SerializeToString()), inputs)
    assert float((found - wanted).norm() / wanted.norm()) < 0.02
    assert parity.agreement == 100 and parity.worst_layer < 0.02 and len(parity.layers) >= 0.8 * len(table)
    assert {k.stored_as for k in table} == {"INT4", "INT8"}
    if name == "mobilenet":  # nothing but the pooling is left in float
        kinds = {node.op_type for node in model.graph.node}
        assert not kinds & {"BatchNormalization", "Relu", "Clip"}


MIXED = [Choice(b, 1.0, t, g) for b in (3, 4, 8) for t in NumberType for g in Granularity]  # all bits: test_integers.py


class Asking(nn.Module):
    """Reads attributes of its layers, as transformers does."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            pad = block[2].kernel_size[0] // 2
            x = x + block[2](nn.functional.pad(block[:2](x).to(block[2].weight.dtype), (pad, pad, pad, pad)))
        return x.mean((2, 3))


def test_rows_look_like_the_layer_that_they_stand_for() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(4, 8, 6, 6)
    network, kernels, left = compressed(Asking().eval(), inputs, lambda kernel: Choice(4, 0.5))
    assert any(type(module).__name__.startswith("Scatter") for module in network.modules())
    model, _, probes = export_network(network, kernels, inputs, Settings(), left)
    assert check_parity(model, network, probes, None, inputs, 4).worst_layer < 0.02
    assert not any(node.op_type == "Pad" for node in model.graph.node)


class Many(nn.Module):
    """One layer for each number format: convolutions first, linear layers then."""

    def __init__(self) -> None:
        super().__init__()
        half = len(MIXED) // 2
        self.maps = nn.ModuleList(nn.Conv2d(12, 12, 3, padding=1, groups=1 + i % 2) for i in range(half))
        self.rows = nn.ModuleList(nn.Linear(12, 12) for _ in range(len(MIXED) - half))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.maps:
            x = x + layer(x).relu()
        x = x.mean((2, 3))
        for layer in self.rows:
            x = x + layer(x)
        return x


def test_every_number_type_and_granularity() -> None:
    torch.manual_seed(0)
    choices = iter(MIXED)
    inputs = torch.randn(8, 12, 4, 4)
    network, kernels, left = compressed(Many().eval(), inputs, lambda kernel: next(choices))
    model, table, probes = export_network(network, kernels, inputs, Settings(), left)
    parity = check_parity(model, network, probes, None, inputs, 10)
    assert parity.agreement == 100 and len(parity.layers) == len(table) == len(MIXED)
    assert {"INT4", "INT8", "FLOAT"} <= {k.stored_as for k in table}
    assert all(k.note for k in table if k.stored_as == "FLOAT")


class Fork(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.matrix_exp(x)


def test_what_cannot_be_exported_is_named() -> None:
    entry = BY_NAME["branching"]
    with pytest.raises(NetworkError, match=r"torch\.where"):
        export_graph(build(entry), entry.inputs(), 21)
    with pytest.raises(NetworkError, match="matrix_exp"):
        export_graph(Fork(), torch.randn(2, 4, 4), 21)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"opset": 12}, "opset 12 is too old.*18"),
        ({"opset": 18, "weights": "int4"}, "opset 18 is too old.*21"),
        ({"opset": 999}, "newer"),
        ({"weights": "int2"}, "--weights 'int2'"),
        ({"activations": "int4"}, "--activations 'int4'"),
        ({"samples": 0}, "--samples"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(RunError, match=words):
        Settings(**settings)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2), nn.ReLU()
        )
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean((2, 3)))


@pytest.fixture(scope="module")
def data() -> TensorBatches:
    torch.manual_seed(0)
    x = torch.randn(300, 3, 8, 8)
    return TensorBatches(x, (x.mean((1, 2, 3)) > 0).long(), 64)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, data: TensorBatches) -> Path:
    torch.manual_seed(0)
    network = Net().eval()
    spec = trace(network, data.x[:2])
    policy = Policy.of({k.name: Choice(5, 0.8) for k in spec.kernels})
    weights = dict(network.named_parameters())
    path = tmp_path_factory.mktemp("file") / "model.hirelc"
    path.write_bytes(pack(apply(network, spec, policy, {k.name: weights[k.name].detach() ** 2 for k in spec.kernels}).eval()))
    return path


def test_a_file_becomes_a_model_that_is_checked(file: Path, data: TensorBatches, tmp_path: Path) -> None:
    found = export_onnx(file, Net, tmp_path / "net.onnx", data=data)
    assert found.size_bytes == (tmp_path / "net.onnx").stat().st_size
    assert found.parity.samples == 300 and found.parity.agreement >= 99.5 and found.sites >= 3
    assert found.parity.accuracy_file is not None and found.to_json()["kernels"]
    model = onnx.load(tmp_path / "net.onnx")
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param  # any number of samples
    assert [i.name for i in model.graph.input] == ["input"] and [o.name for o in model.graph.output] == ["logits"]


def test_float_activations_and_int8_weights(data: TensorBatches) -> None:
    torch.manual_seed(0)
    network, kernels, left = compressed(Net().eval(), data.x[:64], activations=False)
    model, table, probes = export_network(network, kernels, data.x[:2], Settings(weights="int8", opset=18), left)
    parity = check_parity(model, network, probes, data, data.x[:2], 100)
    assert {k.stored_as for k in table} == {"INT8"} and parity.worst_layer < 1e-4 and len(parity.layers) == len(table)
    assert not any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    assert model.opset_import[0].version == 18


def test_a_file_without_ranges_is_judged_by_its_own_answers(
    file: Path, data: TensorBatches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def coarse(*args: Any) -> Any:
        found = observe(*args)
        sites = tuple(replace(site, scale=16 * site.scale, zero_point=site.zero_point // 16) for site in found.sites)
        return Observed(sites, found.left)

    monkeypatch.setattr(exporting, "observe", coarse)  # graph and quantized network agree; the file's network is another
    with pytest.raises(NetworkError, match=r"300 samples, 99\.5 % .*not rounded as in the file: compress with --activations"):
        export_onnx(file, Net, tmp_path / "net.onnx", data=data)
    assert not list(tmp_path.iterdir())


def test_ranges_need_data(file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data"):
        export_onnx(file, Net, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_another_network_than_the_file_s(file: Path, tmp_path: Path, data: TensorBatches) -> None:
    def other() -> nn.Module:
        network = Net()
        network.head = nn.Linear(16, 5)
        return network

    with pytest.raises(FormatError, match=r"head\.weight"):
        export_onnx(file, other, tmp_path / "net.onnx", data=data)


def test_a_divergence_is_found_at_its_layer_and_nothing_is_written(
    file: Path, tmp_path: Path, data: TensorBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = exporting.put_weights

    def wrong(graph: Any, weights: Any) -> Any:
        held = real(graph, weights)
        for name in held["network.layers.3.weight"]:
            values = onnx.numpy_helper.to_array(graph.constants[name])
            graph.constants[name].CopyFrom(onnx.numpy_helper.from_array(np.flip(values, 1).copy(), name))
        return held

    monkeypatch.setattr(exporting, "put_weights", wrong)
    with pytest.raises(NetworkError, match=r"diverges from the file at layers\.3\.weight"):
        export_onnx(file, Net, tmp_path / "net.onnx", data=data)
    assert not list(tmp_path.iterdir())


def test_disagreement_on_the_task_fails_even_when_layers_are_close(data: TensorBatches) -> None:
    torch.manual_seed(0)
    network, kernels, left = compressed(Net().eval(), data.x[:64])
    model, _, probes = export_network(network, kernels, data.x[:2], Settings(), left)
    network.head.bias.data.copy_(torch.tensor([9.0, 0, 0, 0]))
    assert compare_layers(model, network, probes[:-1], data.x[:16])
    with pytest.raises(NetworkError, match=r"agrees with the file on .* 300 samples"):
        check_parity(model, network, probes[:-1], data, data.x[:2], 10_000)


def test_channels_that_hardly_weigh_anything_keep_their_bias() -> None:
    """Their bias is no 32-bit number in units of such a scale: a runtime that computes in integers would overflow."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    with torch.no_grad():
        network[1].weight[1] = 1e-7
        network[1].bias.copy_(torch.tensor([0.5, 0.3, 0.1, 0.2]))
    inputs = torch.randn(4, 3, 5, 5)
    slim, kernels, left = compressed(network, inputs, lambda kernel: Choice(8))
    model, _, probes = export_network(slim, kernels, inputs, Settings(), left)
    assert compare_layers(model, slim, probes, inputs)["0.weight"] < 0.01

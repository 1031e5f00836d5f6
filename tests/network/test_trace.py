"""Tracing and surgery beyond the zoo: overrides, refusals, precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hirelc.errors import NetworkError
from hirelc.network.spec import Coupling, Kernel, Member, NetworkSpec, Pruning
from hirelc.network.surgery import Kept, masked_state, slim
from hirelc.network.trace import original_bytes, trace
from zoo import BY_NAME, build

RESNET = BY_NAME["resnet-basic"]


def test_blocks_can_be_named() -> None:
    spec = trace(build(RESNET), RESNET.inputs(), r"layer\d")
    assert [block.name for block in spec.blocks] == ["layer1", "layer2"]
    assert spec.blocks[0].kernels == tuple(f"layer1.{i}.conv{j}.weight" for i in (0, 1) for j in (1, 2))
    assert {kernel.name for kernel in spec.frame} == {"conv1.weight", "fc.weight"}


def test_one_named_block_and_a_match_inside_another() -> None:
    spec = trace(build(RESNET), RESNET.inputs(), r"layer2(\..*)?")
    assert [block.name for block in spec.blocks] == ["layer2"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("nowhere", "matches no module"), ("layer(", "no regular expression"), ("relu", "matches no module")],
)
def test_bad_block_patterns(pattern: str, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        trace(build(RESNET), RESNET.inputs(), pattern)


@pytest.mark.parametrize("network", [nn.ReLU(), nn.Sequential(nn.BatchNorm1d(4)), nn.LayerNorm(4)])
def test_nothing_to_compress(network: nn.Module) -> None:
    with pytest.raises(NetworkError, match="nothing to compress"):
        trace(network, torch.randn(3, 4))


@pytest.mark.parametrize("inputs", [torch.randn(2, 5, 16, 16), torch.randn(2, 7), {"picture": torch.randn(2, 3, 16, 16)}])
def test_an_input_that_does_not_fit(inputs: object) -> None:
    network = build(RESNET).train()
    with pytest.raises(NetworkError, match="fails on the example input"):
        trace(network, inputs)
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


def test_no_module_and_no_tensor() -> None:
    with pytest.raises(NetworkError, match=r"expected a torch\.nn\.Module, got str"):
        trace("resnet", torch.randn(1))  # type: ignore[arg-type]
    with pytest.raises(NetworkError, match="no tensor"):
        trace(build(RESNET), [])


def test_a_network_that_cannot_be_copied() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(network[0])
    network(torch.randn(2, 4))
    with pytest.raises(NetworkError, match="cannot be copied"):
        trace(network, torch.randn(2, 4))


def test_a_single_layer_is_a_network() -> None:
    spec = trace(nn.Linear(4, 3), torch.randn(2, 4))
    assert [(k.name, k.block, k.pruning) for k in spec.kernels] == [("weight", 0, Pruning.ROWS)]


def test_half_precision_networks_are_described_as_float32() -> None:
    assert (
        trace(build(RESNET).bfloat16(), RESNET.inputs()).original_bytes == trace(build(RESNET), RESNET.inputs()).original_bytes
    )


def test_original_bytes_count_tied_tensors_once() -> None:
    entry = BY_NAME["tied"]
    network = build(entry)
    tied = original_bytes(network)
    network.head.weight = nn.Parameter(network.head.weight.clone())
    assert original_bytes(network) - tied >= 50 * 24 * 4


def test_mac_counts() -> None:
    spec = trace(build(RESNET), RESNET.inputs())
    macs = {kernel.name: kernel.macs for kernel in spec.kernels}
    assert macs["conv1.weight"] == 8 * 3 * 9 * 16 * 16
    assert macs["layer2.1.conv1.weight"] == 16 * 16 * 9 * 8 * 8
    assert macs["fc.weight"] == 160
    twice = trace(build(BY_NAME["used-twice"]), RESNET.inputs()).by_name
    assert twice["layers.0.conv1.weight"].macs == 2 * twice["layers.1.conv1.weight"].macs
    tied = trace(build(BY_NAME["tied"]), BY_NAME["tied"].inputs()).by_name
    assert tied["layers.0.mlp.0.weight"].macs == 24 * 48 * 9  # one sample has nine tokens


def test_a_coupling_that_does_not_hold_is_refused() -> None:
    """The hidden dimension is normalised over: removing units changes what is left."""

    class Softened(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(8, 16), nn.Linear(16, 8)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.fc2(self.fc1(x).softmax(-1))

    network = nn.Sequential(nn.Linear(6, 8), Softened(), Softened(), nn.Linear(8, 3)).eval()
    spec = trace(network, torch.randn(5, 6))
    assert [block.name for block in spec.blocks] == ["1", "2"]
    assert not spec.couplings
    assert {spec.by_name[f"{i}.fc1.weight"].pruning for i in (1, 2)} == {Pruning.ROWS}
    assert any("1.fc1.weight" in note for note in spec.notes)


def test_rows_read_by_other_code_stay() -> None:
    """The module's forward is not what uses the weight, in part."""

    class Peeking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.b(self.a(x)) + x @ self.b.weight.T

    network = nn.Sequential(nn.Linear(6, 8), Peeking(), Peeking(), nn.Linear(8, 3)).eval()
    spec = trace(network, torch.randn(5, 6))
    kernel = spec.by_name["1.b.weight"]
    assert kernel.pruning is Pruning.NONE
    assert "other code" in kernel.reason


@pytest.mark.parametrize("kind", ["Conv1d", "Conv2d", "Conv3d", "Linear"])
@pytest.mark.parametrize("bias", [True, False])
def test_missing_rows_are_scattered_back(kind: str, bias: bool) -> None:
    layer = nn.Linear(4, 6, bias) if kind == "Linear" else getattr(nn, kind)(4, 6, 3, padding=1, groups=2, bias=bias)
    shape = {"Conv1d": (4, 9), "Conv2d": (4, 5, 5), "Conv3d": (4, 3, 4, 5), "Linear": (7, 4)}[kind]
    network = nn.Sequential(layer)
    listed = Kernel("0.weight", "0", kind, tuple(layer.weight.shape), 0, 1, 0, 0, Pruning.ROWS)
    spec = NetworkSpec((listed,), (), (), (), (), 1)
    kept = Kept(rows={"0.weight": (0, 2, 3, 5)})
    for inputs in (torch.randn(2, *shape), torch.randn(*shape)):  # convolutions take single samples too
        expected = torch.func.functional_call(network, masked_state(network, spec, kept), (inputs,))
        smaller = slim(network, spec, kept)
        assert smaller[0].weight.shape[0] == 4
        assert torch.allclose(smaller(inputs), expected, atol=1e-6)
        if bias:
            lost = smaller(inputs).select(inputs.ndim - len(shape) if kind != "Linear" else -1, 1)
            assert torch.allclose(lost, layer.bias[1].expand_as(lost))


def test_member_indices() -> None:
    member = Member("qkv.weight", 0, (0, 12, 24), 3)
    assert member.indices((1, 3)).tolist() == [3, 4, 5, 9, 10, 11, 15, 16, 17, 21, 22, 23, 27, 28, 29, 33, 34, 35]
    assert Coupling(4, (member, Member("bias", 0, (0,), 1, True))).producers == ("bias",)

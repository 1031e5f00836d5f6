"""The counter of bytes and multiply-accumulates against the file itself and against real layers."""

from __future__ import annotations

import itertools
import json
import struct

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from hirelc import cost
from hirelc.artifact.container import pack
from hirelc.compression.apply import apply
from hirelc.compression.prune import canonical
from hirelc.layout import StoredKernel, layout_of
from hirelc.network.spec import NetworkSpec
from hirelc.network.trace import trace, unique_state
from hirelc.policy import Choice, Granularity, NumberType, Policy
from zoo import BY_NAME, build

NETS = ("resnet-basic", "mobilenet", "vit-fused", "tied", "torch-encoder")


@pytest.fixture(scope="module", params=NETS)
def traced(request: pytest.FixtureRequest) -> tuple[nn.Module, NetworkSpec, object]:
    entry = BY_NAME[request.param]
    network = build(entry)
    return network, trace(network, entry.inputs()), entry.inputs()


def policy_of(spec: NetworkSpec, seed: int) -> Policy:
    random = np.random.default_rng(seed)
    formats = list(itertools.product(NumberType, Granularity))
    choices = {}
    for kernel in spec.kernels:
        kind, grain = formats[int(random.integers(len(formats)))]
        choices[kernel.name] = Choice(
            int(random.integers(2, 9)), float(random.choice([1.0, random.uniform(0.05, 1)])), kind, grain
        )
    return canonical(spec, Policy.of(choices))


def squares(network: nn.Module, spec: NetworkSpec) -> dict[str, Tensor]:
    return {k.name: dict(network.named_parameters())[k.name].detach().square() for k in spec.kernels}


@pytest.mark.parametrize("seed", range(6))
def test_file_bytes_is_the_length_of_the_file(traced: tuple[nn.Module, NetworkSpec, object], seed: int) -> None:
    network, spec, _ = traced
    policy = policy_of(spec, seed)
    assert cost.file_bytes(spec, policy) == len(pack(apply(network, spec, policy, squares(network, spec))))


def test_original_bytes_is_the_length_of_the_fp32_file(traced: tuple[nn.Module, NetworkSpec, object]) -> None:
    network, spec, _ = traced
    state = {name: tensor.contiguous() for name, tensor in unique_state(network).items()}
    assert spec.original_bytes == len(safetensors.torch.save(state))


def test_the_sections_are_where_safetensors_puts_them() -> None:
    """The header that `file_bytes` counts is the header that is written, to the byte."""
    network, spec = build(BY_NAME["signal"]), trace(build(BY_NAME["signal"]), BY_NAME["signal"].inputs())
    policy = policy_of(spec, 1)
    data = pack(apply(network, spec, policy, squares(network, spec)))
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    sections = layout_of(spec, policy).sections()
    assert {name: (entry["dtype"], entry["shape"]) for name, entry in header.items()} == {
        name: (dtype, [items]) for name, (dtype, items) in sections.items()
    }


def test_macs_and_parameters_are_those_of_the_slim_network() -> None:
    """Counted again on the pruned modules themselves, by hooks."""
    entry = BY_NAME["resnet-bottleneck"]
    network = build(entry)
    spec = trace(network, entry.inputs())
    policy = policy_of(spec, 3)
    compressed = apply(network, spec, policy, squares(network, spec)).eval()
    counted = []

    def count(module: nn.Module, _inputs: object, output: Tensor) -> None:
        positions = output[0, 0].numel() if isinstance(module, nn.Conv2d) else 1
        counted.append(module.weight.numel() * positions)

    for module in compressed.network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    compressed(entry.inputs())
    assert cost.macs(spec, policy) == sum(counted)
    slim_parameters = sum(p.numel() for p in compressed.network.parameters())
    assert cost.parameters(spec, policy) == slim_parameters


@pytest.mark.parametrize("granularity", list(Granularity))
def test_payload_by_hand(granularity: Granularity) -> None:
    stored = StoredKernel("w", (5, 7), 0, Choice(3, 1.0, NumberType.INT, granularity))
    codes = 14  # 35 codes of 3 bits are 105 bits
    scales = 10 if granularity in (Granularity.PER_CHANNEL, Granularity.LEARNED) else 2
    assert stored.payload_bytes == codes + scales + (granularity is Granularity.UNIFORM)


def test_blocks_add_up_to_nearly_the_file(traced: tuple[nn.Module, NetworkSpec, object]) -> None:
    """What a block's choices change in the file is what `block_bytes` says, but for the manifest's few bytes."""
    _, spec, _ = traced
    plain = Policy.of({k.name: Choice(8, 1.0, NumberType.INT, Granularity.PER_CHANNEL) for k in spec.kernels})
    for index, block in enumerate(spec.blocks):
        changed = plain.updated({name: Choice(3, 1.0, NumberType.FLOAT, Granularity.LEARNED) for name in block.kernels})
        saved = cost.block_bytes(spec, plain, index) - cost.block_bytes(spec, changed, index)
        assert saved > 0
        assert abs(cost.file_bytes(spec, plain) - cost.file_bytes(spec, changed) - saved) <= 48


def test_the_manifest_grows_with_names_not_with_weights() -> None:
    wide = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64)).eval()
    spec = trace(wide, torch.randn(2, 64))
    policy = Policy.of({k.name: Choice(2, 1.0, granularity=Granularity.UNIFORM) for k in spec.kernels})
    assert len(layout_of(spec, policy).manifest()) < 300
    assert cost.file_bytes(spec, policy) < spec.original_bytes / 10

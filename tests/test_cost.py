"""The counter of bytes and multiply-accumulates against files that are written and against real layers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from artifact.files import randomly
from hirelc import cost
from hirelc.artifact.container import pack, read
from hirelc.compression.apply import apply
from hirelc.compression.fakequant import Quantizer
from hirelc.compression.prune import canonical
from hirelc.compression.rate import zero_order_bits
from hirelc.layout import StoredKernel
from hirelc.network.spec import NetworkSpec
from hirelc.network.trace import trace, unique_state
from hirelc.policy import Choice, Granularity, NumberType, Policy
from zoo import BY_NAME, build

NETS = ("resnet-basic", "mobilenet", "vit-fused", "tied", "torch-encoder")
# what the size model does not see: the models of mixed formats, where the calibration's file needed one for all
MODELS_BYTES, WITHIN = 800, 0.02


@pytest.fixture(scope="module", params=NETS)
def traced(request: pytest.FixtureRequest) -> tuple[nn.Module, NetworkSpec]:
    entry = BY_NAME[request.param]
    network = build(entry)
    return network, trace(network, entry.inputs())


def policy_of(spec: NetworkSpec, seed: int) -> Policy:
    choice = randomly(seed)
    return canonical(spec, Policy.of({k.name: choice(i) for i, k in enumerate(spec.kernels)}))


def squares(network: nn.Module, spec: NetworkSpec) -> dict[str, Tensor]:
    return {k.name: dict(network.named_parameters())[k.name].detach().square() for k in spec.kernels}


def rates(network: nn.Module, spec: NetworkSpec) -> Callable[[str, Choice], float]:
    """Zero-order bits per weight of whole kernels, as the landscape has them."""
    weights = dict(network.named_parameters())

    def rate(name: str, choice: Choice) -> float:
        weight = weights[name].detach()
        return zero_order_bits(Quantizer(weight, spec.by_name[name].channel_dim, choice), weight) / weight.numel()

    return rate


def written(network: nn.Module, spec: NetworkSpec, policy: Policy) -> int:
    return len(pack(apply(network, spec, policy, squares(network, spec))))


def sizes_of(network: nn.Module, spec: NetworkSpec) -> cost.SizeModel:
    plain = Policy.of({k.name: Choice(4) for k in spec.kernels})
    return cost.SizeModel(spec, rates(network, spec)).with_overhead_of(plain, written(network, spec, plain))


def test_a_calibrated_model_is_right_about_its_own_file(traced: tuple[nn.Module, NetworkSpec]) -> None:
    network, spec = traced
    plain = Policy.of({k.name: Choice(4) for k in spec.kernels})
    assert abs(sizes_of(network, spec).file_bytes(plain) - written(network, spec, plain)) <= 1


@pytest.mark.parametrize("seed", range(4))
def test_files_are_about_as_long_as_said(traced: tuple[nn.Module, NetworkSpec], seed: int) -> None:
    network, spec = traced
    policy = policy_of(spec, seed)
    length = written(network, spec, policy)
    assert sizes_of(network, spec).file_bytes(policy) == pytest.approx(length, abs=MODELS_BYTES)


class Wider(nn.Module):
    """Large enough that codes are what a file is made of."""

    def __init__(self) -> None:
        super().__init__()
        widths = (16, 32, 64, 96)
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.layers = nn.Sequential(*[nn.Sequential(*self.layer(a, b), *self.layer(b, b)) for a, b in pairwise(widths)])
        self.head = nn.Linear(96, 10)

    def layer(self, entering: int, leaving: int) -> tuple[nn.Module, ...]:
        return nn.Conv2d(entering, leaving, 3, padding=1, bias=False), nn.BatchNorm2d(leaving), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.stem(x)).mean((2, 3)))


def test_larger_files_are_right_to_two_per_cent() -> None:
    torch.manual_seed(0)
    network = Wider().eval()
    spec = trace(network, torch.randn(2, 3, 16, 16))
    sizes = sizes_of(network, spec)
    for seed in (1, 2, 4):
        policy = policy_of(spec, seed)
        length = written(network, spec, policy)
        assert length > 50_000
        assert sizes.file_bytes(policy) == pytest.approx(length, rel=WITHIN)


def test_original_bytes_is_the_length_of_the_fp32_file(traced: tuple[nn.Module, NetworkSpec]) -> None:
    network, spec = traced
    state = {name: tensor.contiguous() for name, tensor in unique_state(network).items()}
    assert spec.original_bytes == len(safetensors.torch.save(state))


def test_what_a_block_saves_is_what_the_file_saves(traced: tuple[nn.Module, NetworkSpec]) -> None:
    network, spec = traced
    sizes = sizes_of(network, spec)
    plain = Policy.of({k.name: Choice(8, granularity=Granularity.PER_CHANNEL) for k in spec.kernels})
    for index, block in enumerate(spec.blocks):
        coarse = Choice(3, 1.0, NumberType.FLOAT, Granularity.LEARNED)
        changed = plain.updated({name: coarse for name in block.kernels})
        saved = sizes.block_bytes(plain, index) - sizes.block_bytes(changed, index)
        assert saved > 0
        assert abs(sizes.file_bytes(plain) - sizes.file_bytes(changed) - saved) <= 2


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
    assert cost.macs(spec) == sum(k.macs for k in spec.kernels) > cost.macs(spec, policy)
    assert cost.parameters(spec, policy) == sum(p.numel() for p in compressed.network.parameters())


@pytest.mark.parametrize("seed", range(3))
def test_blocks_and_frame_make_up_the_macs(traced: tuple[nn.Module, NetworkSpec], seed: int) -> None:
    """What a block takes follows from its own choices alone."""
    _, spec = traced
    policy = policy_of(spec, seed)
    blocks = [
        cost.block_macs(spec, {name: policy[name] for name in block.kernels}, index) for index, block in enumerate(spec.blocks)
    ]
    assert sum(blocks) + sum(kernel.macs for kernel in spec.frame) == cost.macs(spec, policy)


@pytest.mark.parametrize("granularity", list(Granularity))
def test_codes_and_scales_by_hand(granularity: Granularity) -> None:
    stored = StoredKernel("w", (5, 7), 0, Choice(3, 1.0, NumberType.INT, granularity))
    assert stored.codes == 35
    assert stored.scales == (5 if granularity in (Granularity.PER_CHANNEL, Granularity.LEARNED) else 1)


def test_fewer_bits_and_fewer_channels_are_smaller(traced: tuple[nn.Module, NetworkSpec]) -> None:
    network, spec = traced
    sizes = sizes_of(network, spec)
    lengths = [sizes.file_bytes(canonical(spec, Policy.of({k.name: Choice(b) for k in spec.kernels}))) for b in (8, 6, 4, 3, 2)]
    assert lengths == sorted(lengths, reverse=True) and len(set(lengths)) == 5
    half = canonical(spec, Policy.of({k.name: Choice(4, 0.5) for k in spec.kernels}))
    assert sizes.file_bytes(half) < lengths[2]
    assert read(pack(apply(network, spec, half, squares(network, spec)))).layout.mask_bits > 0

"""What must hold of every network: found whole, left unchanged, slim equals masked, the file holds what was computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hirelc import cost
from hirelc.artifact.container import pack
from hirelc.artifact.load import load
from hirelc.compression.apply import apply
from hirelc.compression.prune import select
from hirelc.network.calling import call, logits_of
from hirelc.network.kernels import is_hf_conv1d
from hirelc.network.spec import NetworkSpec, Pruning
from hirelc.network.surgery import masked_state, slim
from hirelc.network.trace import trace, unique_state
from hirelc.policy import Choice, Granularity, NumberType, Policy
from zoo import ENTRIES, Entry, build

TOLERANCE = 1e-4


MARKED = [pytest.param(entry, id=entry.name, marks=[pytest.mark.slow] * entry.slow) for entry in ENTRIES]


@pytest.fixture(scope="module", params=MARKED)
def entry(request: pytest.FixtureRequest) -> Entry:
    return request.param


@pytest.fixture(scope="module")
def network(entry: Entry) -> nn.Module:
    return build(entry)


@pytest.fixture(scope="module")
def spec(entry: Entry, network: nn.Module) -> NetworkSpec:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    logits, own_hooks = run(network, entry.inputs()), hooks(network)
    found = trace(network, entry.inputs())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(run(network, entry.inputs()), logits)
    assert hooks(network) == own_hooks
    return found


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


def run(network: nn.Module, inputs: Any, state: dict[str, Tensor] | None = None) -> Tensor:
    with torch.no_grad():
        return logits_of(call(network, inputs, state))


def distance(expected: Tensor, actual: Tensor) -> float:
    assert expected.shape == actual.shape
    return float((expected - actual).abs().max() / expected.abs().max())


def random_policy(spec: NetworkSpec, seed: int) -> Policy:
    """Any bits and formats, keep ratios from a quarter to all."""
    random = np.random.default_rng(seed)
    return Policy.of(
        {
            kernel.name: Choice(
                int(random.integers(2, 9)),
                float(random.uniform(0.25, 1)),
                random.choice(list(NumberType)),
                random.choice(list(Granularity)),
            )
            for kernel in spec.kernels
        }
    )


def squares(network: nn.Module, spec: NetworkSpec) -> dict[str, Tensor]:
    weights = dict(network.named_parameters())
    return {kernel.name: weights[kernel.name].detach().square() for kernel in spec.kernels}


def test_every_kernel_is_found_or_listed(entry: Entry, network: nn.Module, spec: NetworkSpec) -> None:
    listed = {untouched.name for untouched in spec.untouched}
    wanted = [nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Embedding]
    tied = {id(p): name for name, p in network.named_parameters()}  # under its first name
    for path, module in network.named_modules():
        if isinstance(module, tuple(wanted)) or is_hf_conv1d(module):
            name = tied.get(id(module.weight), f"{path}.weight")
            assert name in spec.by_name or name in listed, name
        if isinstance(module, nn.MultiheadAttention):
            assert f"{path}.in_proj_weight" in spec.by_name
    assert listed == set(entry.untouched)
    assert all(untouched.reason for untouched in spec.untouched)
    assert len({kernel.name for kernel in spec.kernels}) == len(spec.kernels)


def test_blocks_are_sensible(entry: Entry, spec: NetworkSpec) -> None:
    assert len(spec.blocks) == entry.blocks
    owned = [name for block in spec.blocks for name in block.kernels]
    assert len(set(owned)) == len(owned)
    assert {kernel.name for kernel in spec.kernels if kernel.block is not None} == set(owned)
    assert sum(spec.by_name[name].weights for name in owned) > 0.3 * sum(kernel.weights for kernel in spec.kernels)
    assert all(kernel.pruning is not Pruning.NONE or kernel.reason for kernel in spec.kernels)


def test_inner_dimensions_are_coupled(entry: Entry, spec: NetworkSpec) -> None:
    found = {kernel.name for kernel in spec.kernels if kernel.pruning is Pruning.COUPLED}
    assert found == set(entry.coupled)


def test_macs_follow_from_the_shapes(spec: NetworkSpec) -> None:
    policy = random_policy(spec, 0)
    assert 0 < cost.macs(spec, policy) < cost.macs(spec) == sum(kernel.macs for kernel in spec.kernels)


@pytest.mark.parametrize("seed", range(5))
def test_slim_equals_masked(entry: Entry, network: nn.Module, spec: NetworkSpec, seed: int) -> None:
    kept = select(spec, random_policy(spec, seed), squares(network, spec))
    assert kept.rows or kept.units
    masked = run(network, entry.inputs(), masked_state(network, spec, kept))
    smaller = slim(network, spec, kept)
    assert distance(masked, run(smaller, entry.inputs())) <= TOLERANCE
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("seed", range(2))
def test_the_file_holds_what_was_computed(entry: Entry, network: nn.Module, spec: NetworkSpec, seed: int) -> None:
    compressed = apply(network, spec, random_policy(spec, seed), squares(network, spec)).eval()
    loaded = load(pack(compressed), entry.factory)
    weights = dict(loaded.named_parameters())
    assert all(torch.equal(weights[name], value) for name, value in compressed.quantized().items())
    # norms, biases and embeddings are coded, in steps of a fraction of their spread: with theirs the rest must be the same
    for name, value in unique_state(compressed.network).items():
        if name not in compressed.names and name in weights and value.numel() > 1 and float(value.std()) > 0:
            near = float((weights[name] - value).abs().mean() / value.std())
            assert near < 0.3 or name.rpartition(".")[0] in folded(network), name
    compressed.network.load_state_dict(
        {n: t for n, t in loaded.state_dict().items() if n not in compressed.names}, strict=False
    )
    assert distance(run(compressed, entry.inputs()), run(loaded, entry.inputs())) <= TOLERANCE


def folded(network: nn.Module) -> set[str]:
    """Paths of the BatchNorms, whose numbers the file holds in another form."""
    return {path for path, module in network.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}


def test_a_saved_state_dict_reads_back(entry: Entry, network: nn.Module, spec: NetworkSpec) -> None:
    """The slim network is an ordinary module: its state fits another slim network of the same cut."""
    kept = select(spec, random_policy(spec, 7), squares(network, spec))
    first, second = slim(network, spec, kept), slim(entry.factory().eval(), spec, kept)
    second.load_state_dict(first.state_dict())
    assert torch.equal(run(first, entry.inputs()), run(second, entry.inputs()))

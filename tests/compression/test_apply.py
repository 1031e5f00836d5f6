from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hirelc.compression.apply import absorb, apply, keep_steps
from hirelc.compression.prune import canonical, effective_keep, select
from hirelc.compression.quantize import coarser
from hirelc.errors import PolicyError
from hirelc.network.spec import NetworkSpec, Pruning
from hirelc.network.surgery import slices_of
from hirelc.network.trace import trace
from hirelc.policy import Choice, Granularity, Policy
from zoo import BY_NAME, build


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return build(BY_NAME["resnet-basic"])


@pytest.fixture(scope="module")
def spec(network: nn.Module) -> NetworkSpec:
    return trace(network, BY_NAME["resnet-basic"].inputs())


def importance(network: nn.Module, spec: NetworkSpec) -> dict[str, Tensor]:
    return {k.name: dict(network.named_parameters())[k.name].detach().square() for k in spec.kernels}


def uniform(spec: NetworkSpec, keep: float = 1.0, bits: int = 8) -> Policy:
    return Policy.of({k.name: Choice(bits, keep, granularity=Granularity.PER_CHANNEL) for k in spec.kernels})


def test_the_canonical_policy_is_what_takes_effect(spec: NetworkSpec) -> None:
    policy = canonical(spec, uniform(spec, 0.3))
    assert policy["conv1.weight"].keep_ratio == 1.0  # the frame
    assert policy["layer1.0.conv1.weight"].keep_ratio == 2 / 8  # round(0.3 * 8) units
    assert policy["layer2.0.conv2.weight"].keep_ratio == 5 / 16
    assert canonical(spec, policy) == policy


def test_coupled_kernels_follow_the_safest(spec: NetworkSpec) -> None:
    entry = BY_NAME["mobilenet"]
    spec = trace(build(entry), entry.inputs())
    first, second = spec.couplings[0].producers
    policy = uniform(spec).updated({first: Choice(8, 0.25), second: Choice(8, 0.75)})
    assert effective_keep(spec, policy, spec.by_name[first]) == effective_keep(spec, policy, spec.by_name[second]) == 0.75


def test_at_least_one_channel_stays(network: nn.Module, spec: NetworkSpec) -> None:
    compressed = apply(network, spec, uniform(spec, 0.001), importance(network, spec)).eval()
    assert all(len(units) == 1 for units in compressed.kept.units.values())
    assert all(len(rows) == 1 for rows in compressed.kept.rows.values())
    assert torch.isfinite(compressed(BY_NAME["resnet-basic"].inputs())).all()


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_a_policy_of_another_network(network: nn.Module, spec: NetworkSpec, change: str) -> None:
    choices = dict(uniform(spec).choices)
    if change == "missing":
        del choices["fc.weight"]
    else:
        choices["nowhere.weight"] = Choice()
    with pytest.raises(PolicyError, match=r"fc\.weight" if change == "missing" else r"nowhere\.weight"):
        apply(network, spec, Policy.of(choices), importance(network, spec))


def test_the_most_important_channels_stay(network: nn.Module, spec: NetworkSpec) -> None:
    scores = {name: torch.zeros_like(value) for name, value in importance(network, spec).items()}
    scores["layer1.0.conv1.weight"][[1, 6]] = 1.0
    scores["layer1.0.conv2.weight"][:, 4] = 3.0  # what reads the channel counts too
    scores["layer1.1.conv2.weight"][[0, 5, 7]] = 1.0
    policy = uniform(spec).updated({"layer1.0.conv1.weight": Choice(8, 3 / 8), "layer1.1.conv2.weight": Choice(8, 3 / 8)})
    kept = select(spec, policy, scores)
    assert list(kept.units.values()) == [(1, 4, 6)]
    assert kept.rows == {"layer1.1.conv2.weight": (0, 5, 7)}


def test_rows_are_kept_evenly_over_convolution_groups() -> None:
    entry = BY_NAME["regnet"]
    network = build(entry)
    spec = trace(network, entry.inputs())
    # as it is where the dimension leaves the block, so that no whole group can go
    spec = replace(spec, couplings=(), kernels=tuple(replace(k, pruning=Pruning.ROWS) for k in spec.kernels))
    scores = importance(network, spec)
    scores["layer2.0.conv2.weight"][:8] *= 100  # the first groups alone would win
    policy = uniform(spec).updated({"layer2.0.conv2.weight": Choice(8, 0.5)})
    rows = np.array(select(spec, policy, scores).rows["layer2.0.conv2.weight"])
    assert np.bincount(rows // 4).tolist() == [2, 2, 2, 2]


def test_the_given_network_is_not_changed(network: nn.Module, spec: NetworkSpec) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    compressed = apply(network, spec, uniform(spec, 0.5, 2), importance(network, spec))
    for parameter in compressed.parameters():
        parameter.data.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_quantized_gradients_reach_the_float_weights(network: nn.Module, spec: NetworkSpec) -> None:
    policy = uniform(spec, 0.5).updated({"fc.weight": Choice(4, 1.0, granularity=Granularity.LEARNED)})
    compressed = apply(network, spec, policy, importance(network, spec))
    compressed(BY_NAME["resnet-basic"].inputs()).square().sum().backward()
    named = dict(compressed.network.named_parameters())
    assert all(named[k.name].grad is not None and named[k.name].grad.abs().sum() > 0 for k in spec.kernels)
    assert compressed.quantizer_of()["fc.weight"].scale.grad is not None


def test_absorb_writes_back_what_is_left_and_nothing_else(network: nn.Module, spec: NetworkSpec) -> None:
    import copy

    target = copy.deepcopy(network)
    compressed = apply(network, spec, uniform(spec, 0.5), importance(network, spec))
    with torch.no_grad():
        for tensor in (*compressed.network.parameters(), *compressed.network.buffers()):
            if tensor.is_floating_point():
                tensor.add_(1.0)
    absorb(target, compressed)
    cuts = slices_of(spec, compressed.kept)
    assert any(k.pruning is Pruning.ROWS and k.name in cuts for k in spec.kernels)
    for name, tensor in target.state_dict().items():
        if not tensor.is_floating_point():
            continue
        expected = torch.ones_like(tensor)
        for dim, indices in cuts.get(name, []):
            mask = torch.zeros(tensor.shape[dim])
            mask[torch.from_numpy(indices)] = 1.0
            expected = expected * mask.view([-1 if d == dim else 1 for d in range(tensor.ndim)])
        assert torch.allclose(tensor - network.state_dict()[name], expected, atol=1e-5), name
    again = apply(target, spec, compressed.policy, importance(network, spec))
    assert all(torch.allclose(a, b) for a, b in zip(again.network.parameters(), compressed.network.parameters(), strict=True))


@pytest.mark.parametrize("multiple", [1, 3, 4, 8, 32])
def test_aligned_counts_are_multiples_or_all(spec: NetworkSpec, multiple: int) -> None:
    for keep in (0.01, 0.3, 0.5, 0.8, 1.0):
        policy = canonical(replace(spec, align=multiple), uniform(spec, keep))
        assert canonical(spec, policy) == policy
        for kernel in spec.kernels:
            kept = round(policy[kernel.name].keep_ratio * kernel.channels)
            assert kept > 0 and (kept % multiple == 0 or kept == kernel.channels)
            before = effective_keep(spec, uniform(spec, keep), kernel) * kernel.channels
            assert abs(kept - before) <= max(multiple / 2, multiple - before) or kept == kernel.channels


def test_aligned_heads_count_their_channels() -> None:
    entry = BY_NAME["vit-fused"]
    spec = trace(build(entry), entry.inputs())
    policy = canonical(replace(spec, align=12), uniform(spec, 0.3))  # a head has 6 channels
    assert policy["layers.0.attn.qkv.weight"].keep_ratio == 0.5  # 2 of 4 heads


def test_kernels_that_are_treated_alike_keep_their_trained_steps(network: nn.Module, spec: NetworkSpec) -> None:
    names, weights = [k.name for k in spec.kernels], importance(network, spec)
    alike = uniform(spec, bits=4)
    trained = apply(network, spec, alike, weights)
    with torch.no_grad():
        for quantizer in trained.quantizer_of().values():
            quantizer.scale *= 1.5
    changed = Policy.of({n: replace(c, bits=3) if n == names[0] else c for n, c in dict(alike.choices).items()})
    again = apply(network, spec, changed, weights)
    found = {n: q.scale.clone() for n, q in again.quantizer_of().items()}
    keep_steps(again, trained)
    for name, quantizer in again.quantizer_of().items():
        wanted = found[name] if name == names[0] else trained.quantizer_of()[name].scale
        assert torch.equal(quantizer.scale, wanted) and quantizer.trained == (name != names[0])


def test_steps_are_kept_by_channel_and_move_with_the_rungs(network: nn.Module, spec: NetworkSpec) -> None:
    weights = importance(network, spec)
    few, all_of_them = uniform(spec, 0.5, bits=4), uniform(spec, bits=4)
    trained = apply(network, spec, few, weights)
    with torch.no_grad():
        for quantizer in trained.quantizer_of().values():
            quantizer.scale.copy_(coarser(quantizer.scale, 6))
    again = apply(network, spec, Policy.of({n: replace(c, coarse=4) for n, c in dict(all_of_them.choices).items()}), weights)
    found = {n: q.scale.clone() for n, q in again.quantizer_of().items()}
    keep_steps(again, trained)
    grew = 0
    for name, quantizer in again.quantizer_of().items():
        known = coarser(trained.quantizer_of()[name].scale, 4).flatten().tolist()
        kept = [a for a, b in zip(quantizer.scale.flatten().tolist(), found[name].flatten().tolist(), strict=True) if a != b]
        assert quantizer.trained and (not kept or set(kept) <= set(known))
        grew += len(quantizer.scale) > len(known)
    assert grew

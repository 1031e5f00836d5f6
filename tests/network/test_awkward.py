"""Habits of networks that a file must survive: compiled, in half precision, shared, with heads that are not all there."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hirelc.artifact.container import pack
from hirelc.artifact.load import load
from hirelc.compression.apply import apply
from hirelc.errors import NetworkError
from hirelc.network.attention import FewerHeads, without_heads
from hirelc.network.spec import Pruning
from hirelc.network.surgery import Kept, slim
from hirelc.network.trace import trace
from hirelc.policy import Choice, Policy
from zoo import BY_NAME, TorchEncoder, build

RESNET, MHA = BY_NAME["resnet-basic"], BY_NAME["vit-torchvision"]


def compressed(network: nn.Module, inputs: Any) -> bytes:
    spec = trace(network, inputs)
    weights = dict(network.named_parameters())
    policy = Policy.of({k.name: Choice(4, 0.5) for k in spec.kernels})
    return pack(
        apply(network.float(), spec, policy, {k.name: weights[k.name].detach().float() ** 2 for k in spec.kernels}).eval()
    )


def test_a_network_in_bf16_is_read_back_in_float32() -> None:
    network = build(RESNET).bfloat16()
    loaded = load(compressed(network, RESNET.inputs()), lambda: RESNET.factory().bfloat16())
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert loaded(RESNET.inputs()).isfinite().all()


@pytest.mark.parametrize("part", ["whole", "inside"])
def test_compiled_modules_are_unwrapped(part: str) -> None:
    def make() -> nn.Module:
        network = build(RESNET)
        if part == "whole":
            return torch.compile(network)
        network.layer1 = torch.compile(network.layer1)
        return network

    assert trace(make(), RESNET.inputs()) == trace(build(RESNET), RESNET.inputs())
    data = compressed(build(RESNET), RESNET.inputs())
    with torch.no_grad():
        assert torch.equal(load(data, make)(RESNET.inputs()), load(data, RESNET.factory)(RESNET.inputs()))


def test_a_network_in_training_mode_is_traced_as_it_answers() -> None:
    """Dropout would make every comparison fail."""
    network = build(BY_NAME["vit-fused"]).train()
    assert trace(network, MHA.inputs()) == trace(build(BY_NAME["vit-fused"]), MHA.inputs())
    assert network.training


# -- nn.MultiheadAttention with fewer heads --------------------------------------------------------------------


def attention(**settings: Any) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    return nn.MultiheadAttention(12, 4, **settings).eval()


def fewer(module: nn.MultiheadAttention) -> nn.MultiheadAttention:
    found = copy.deepcopy(module)
    without_heads(found)
    assert type(found) is FewerHeads
    return found


SELF = torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(0))
PADDING = torch.tensor([[False] * 5, [False, False, True, True, True], [False] * 4 + [True]])
CAUSAL = torch.ones(5, 5).triu(1).bool()


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize(
    "masks",
    [
        {},
        {"key_padding_mask": PADDING},
        {"attn_mask": CAUSAL, "is_causal": True},
        {"attn_mask": torch.zeros(5, 5).masked_fill(CAUSAL, -1e4), "key_padding_mask": torch.zeros(3, 5)},
        {"attn_mask": CAUSAL.expand(12, 5, 5), "average_attn_weights": False},
    ],
    ids=["none", "padding", "causal", "both, additive", "one for each head"],
)
def test_all_heads_compute_what_the_stock_module_does(masks: dict[str, Any], need_weights: bool) -> None:
    module = attention(batch_first=True)
    wanted, weights = module(SELF, SELF, SELF, need_weights=need_weights, **masks)
    found, others = fewer(module)(SELF, SELF, SELF, need_weights=need_weights, **masks)
    assert torch.allclose(found, wanted, atol=1e-6)
    assert others is None if weights is None else torch.allclose(others, weights, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"kdim": 7, "vdim": 9}, {"bias": False}])
def test_other_shapes_of_the_stock_module(settings: dict[str, Any]) -> None:
    module = attention(**settings)  # the sequence comes first
    key, value = torch.randn(6, 3, settings.get("kdim", 12)), torch.randn(6, 3, settings.get("vdim", 12))
    query = torch.randn(5, 3, 12)
    assert torch.allclose(fewer(module)(query, key, value)[0], module(query, key, value)[0], atol=1e-6)
    single = (query[:, 0], key[:, 0], value[:, 0])
    wanted, found = module(*single), fewer(module)(*single)
    assert all(a.shape == b.shape and torch.allclose(a, b, atol=1e-6) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("nested", [True, False])
def test_torch_s_encoder_runs_with_heads_gone_and_masks_that_tracing_has_not_seen(nested: bool) -> None:
    torch.manual_seed(0)
    network = TorchEncoder().eval()
    layer = nn.TransformerEncoderLayer(24, 4, 48, batch_first=True)
    network.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested).eval()
    inputs = torch.randn(2, 7, 6)
    spec = trace(network, inputs)
    index = next(i for i, c in enumerate(spec.couplings) if "in_proj" in c.producers[0])
    smaller = slim(network, spec, Kept(units={index: (1, 3)}))
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[1, 4:] = True
    with torch.no_grad():  # packed and fused are inference only
        embedded = smaller.embed(inputs)
        found = smaller.encoder(embedded, src_key_padding_mask=padding)
        shorter = smaller.encoder(embedded[1:, :4])
    assert torch.allclose(found[1, :4], shorter[0], atol=1e-5)


def test_an_attention_that_adds_keys_of_its_own_stays_whole() -> None:
    class Adding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = nn.MultiheadAttention(12, 4, add_bias_kv=True, batch_first=True)
            self.fc1, self.fc2 = nn.Linear(12, 24), nn.Linear(24, 12)

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.attn(x, x, x)[0]
            return x + self.fc2(self.fc1(x).relu())

    spec = trace(nn.Sequential(Adding(), Adding(), nn.Linear(12, 3)).eval(), SELF)
    assert spec.by_name["0.attn.in_proj_weight"].pruning is Pruning.NONE
    assert spec.by_name["0.attn.in_proj_weight"].reason


class Mixing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.mix = nn.Linear(12, 24), nn.Linear(24, 12), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.fc2(self.fc1(x).relu())
        return x + self.mix(x.transpose(1, 2)).transpose(1, 2)


class Sampling(nn.Module):
    """Shuffles its tokens at each call, also in eval mode, as masked autoencoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Mixing() for _ in range(2))
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, torch.randperm(x.shape[1])]
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


def test_a_network_that_draws_random_numbers_is_compared_with_the_same_ones_and_that_is_said() -> None:
    torch.manual_seed(0)
    network = Sampling().eval()
    state = torch.get_rng_state()
    spec = trace(network, SELF)
    assert {k.name for k in spec.kernels if k.pruning is Pruning.COUPLED} == {"layers.0.fc1.weight", "layers.1.fc1.weight"}
    assert all(k.pruning is Pruning.ROWS for k in spec.kernels if k.name.endswith(("fc2.weight", "mix.weight")))
    assert [note for note in spec.notes if "draws random numbers in eval mode" in note]
    assert torch.equal(torch.get_rng_state(), state)
    assert not [note for note in trace(build(MHA), MHA.inputs()).notes if "random" in note]


def test_a_forward_pass_that_fails_names_the_module() -> None:
    network = nn.Sequential(nn.Linear(12, 4), nn.Sequential(nn.ReLU(), nn.Linear(5, 3)))
    with pytest.raises(NetworkError, match=r"fails on the example input in 1\.1 \(Linear\): RuntimeError"):
        trace(network, torch.zeros(2, 12))

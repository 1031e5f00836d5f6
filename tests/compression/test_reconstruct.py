"""Reconstruction: layers are seen as they compute, rounding compensates, what cannot be reconstructed is said."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hirelc.artifact.container import pack, read
from hirelc.artifact.load import build
from hirelc.compression.apply import CompressedNetwork, apply
from hirelc.compression.moments import DIFFERS, NO_PRODUCT, Moments, draw_positions, find_layers, gather, inputs_at, outputs_at
from hirelc.compression.quantize import Grid, as_rows
from hirelc.compression.reconstruct import Reconstruction
from hirelc.compression.rounding import refit, round_columns
from hirelc.network.surgery import ScatterConv2d, ScatterLinear
from hirelc.network.trace import trace
from hirelc.policy import Choice, Granularity, NumberType, Policy

FORMATS = [
    Choice(3, 1.0, NumberType.INT, Granularity.LEARNED),
    Choice(4, 1.0, NumberType.INT, Granularity.UNIFORM),
    Choice(4, 1.0, NumberType.FLOAT, Granularity.PER_CHANNEL),
    Choice(4, 1.0, NumberType.INT, Granularity.LOG),
]


class Conv1D(nn.Module):
    """As in Hugging Face's GPT-2: a linear layer whose weight is stored (in, out)."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(torch.randn(nx, nf) * 0.2)
        self.bias = nn.Parameter(torch.zeros(nf))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Residual(nn.Module):
    """A convolution in groups, a depthwise one with BatchNorm, and back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 2 * channels, 3, padding="same", padding_mode="circular", groups=2)
        self.depthwise = nn.Conv2d(2 * channels, 2 * channels, 3, padding=2, dilation=2, groups=2 * channels, bias=False)
        self.norm = nn.BatchNorm2d(2 * channels)
        self.conv2 = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.norm(self.depthwise(self.conv1(x)))))


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(Residual(8) for _ in range(2))
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.middle = Conv1D(16, 8)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(F.gelu(self.middle(self.up(x).mean((2, 3)))))


def images(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    smooth = F.interpolate(torch.randn(count, 3, 4, 4, generator=generator), (12, 12), mode="bilinear")
    return smooth + 0.3 * torch.randn(count, 3, 12, 12, generator=generator) + 0.5


@pytest.fixture(scope="module")
def mixed() -> Mixed:
    torch.manual_seed(0)
    network = Mixed()
    network.train()
    with torch.no_grad():
        for seed in range(20):  # BatchNorms that know their inputs
            network(images(32, seed))
    return network.eval()


def compressed_by(network: nn.Module, choice: Choice, example: Tensor) -> CompressedNetwork:
    spec = trace(network, example[:2])
    weights = dict(network.named_parameters())
    squared = {k.name: weights[k.name].detach().square() for k in spec.kernels}
    return apply(network, spec, Policy.of({k.name: choice for k in spec.kernels}), squared).eval()


@torch.no_grad()
def distance(original: nn.Module, other: nn.Module, inputs: Tensor) -> float:
    return float((original(inputs) - other(inputs)).square().mean())


# -- what a layer reads and gives ---------------------------------------------------------------------------

LAYERS: list[tuple[Callable[[], nn.Module], tuple[int, ...]]] = [
    (lambda: nn.Linear(6, 4, bias=False), (3, 5, 6)),
    (lambda: Conv1D(4, 6), (3, 5, 6)),
    (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, bias=False), (3, 4, 11)),
    (lambda: nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1), groups=2, bias=False), (3, 4, 9, 8)),
    (lambda: nn.Conv2d(4, 6, 3, padding="same", padding_mode="reflect", bias=False), (3, 4, 9, 8)),
    (lambda: nn.Conv2d(4, 8, (4, 2), padding="same", groups=4, bias=False), (3, 4, 9, 8)),
    (lambda: nn.Conv3d(2, 4, 2, padding="valid", bias=False), (2, 2, 4, 5, 6)),
    (lambda: nn.Conv2d(4, 6, 3, bias=False), (4, 9, 8)),
]


@pytest.mark.parametrize("make, shape", LAYERS)
def test_rows_times_what_is_read_is_what_is_given(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    module, inputs = make(), torch.randn(shape)
    with torch.no_grad():
        outputs = module(inputs)
    at = draw_positions(module, outputs, torch.Generator().manual_seed(0))
    read, given = inputs_at(module, inputs, at), outputs_at(module, outputs, at)
    rows = as_rows(module.weight.detach(), 1 if isinstance(module, Conv1D) else 0).reshape(len(read), -1, read.shape[2])
    product = torch.einsum("gmn,gpn->pgm", rows, read).reshape(given.shape)
    assert torch.allclose(product, given, atol=1e-5)
    assert given.numel() == outputs.numel()  # few enough to look at all of them


def test_an_empty_batch_gives_no_positions() -> None:
    convolution, inputs = nn.Conv2d(4, 6, 3, groups=2), torch.zeros(0, 4, 9, 8)
    at = draw_positions(convolution, convolution(inputs), torch.Generator().manual_seed(0))
    assert inputs_at(convolution, inputs, at).shape == (2, 0, 18)


def test_only_some_positions_of_large_results_are_looked_at() -> None:
    convolution, inputs = nn.Conv2d(1, 2, 3), torch.randn(16, 1, 40, 40)
    at = draw_positions(convolution, convolution(inputs), torch.Generator().manual_seed(0))
    assert len(at[0]) == 8192 // 16
    assert len({(int(a), int(b)) for a, b in zip(*at, strict=True)}) == len(at[0])


def test_moments_are_those_of_the_network_as_it_is_now(mixed: Mixed) -> None:
    x = images(16, 1)
    compressed = compressed_by(mixed, Choice(8), x)
    layers, _ = find_layers(compressed, x[:2])
    head = [layer for layer in layers if layer.name == "head.weight"]
    with torch.no_grad():
        compressed.network.middle.bias.add_(1.0)
        read = F.gelu(compressed.network.middle(compressed.network.up(_before_up(compressed.network, x)).mean((2, 3)))).double()
        given = mixed(x).double()
    found = gather(mixed, compressed.network, head, [x[:9], x[9:]], seed=0)["head.weight"]
    assert found.count == 16 and not found.failed
    assert torch.allclose(found.inputs[0], read.T @ read, rtol=1e-4)
    assert torch.allclose(found.cross[0], given.T @ read, rtol=1e-4, atol=1e-4)


def _before_up(network: nn.Module, x: Tensor) -> Tensor:
    x = network.stem(x)
    for layer in network.layers:
        x = layer(x)
    return x


# -- least squares and rounding -----------------------------------------------------------------------------


def correlated(count: int = 400, width: int = 24) -> Tensor:
    """Inputs that go together, with a mean; (count, width) float64."""
    torch.manual_seed(0)
    return (torch.randn(count, 6) @ torch.randn(6, width) + 0.3 * torch.randn(count, width) + 0.5).double()


def test_refit_makes_good_for_inputs_that_are_gone() -> None:
    x, weight = correlated(), torch.randn(8, 24).double()
    y, left = x @ weight.T, x[:, :18]
    found = refit(weight[:, :18], left.T @ left / len(x), y.T @ left / len(x))
    lost = (left @ weight[:, :18].T - y).square().mean()
    assert (left @ found.T - y).square().mean() < 0.1 * lost


def test_refit_stays_where_the_samples_say_nothing() -> None:
    weight = torch.randn(8, 24).double()
    assert torch.allclose(refit(weight, torch.zeros(24, 24).double(), torch.zeros(8, 24).double()), weight)


def test_rounding_by_columns_beats_rounding_alone_and_lies_on_levels() -> None:
    x, weight = correlated(), torch.randn(8, 24).double()
    grid, scale = Grid.of(Choice(3, 1.0, NumberType.INT, Granularity.LEARNED)), torch.full((8, 1), 0.7)
    moments = x.T @ x / len(x)
    found = round_columns(weight, moments, grid, scale)
    assert torch.equal(found, grid.nearest(found / scale) * scale)
    alone = (grid.nearest(weight.float() / scale) * scale).double()
    assert (x @ (found.double() - weight).T).square().mean() < 0.3 * (x @ (alone - weight).T).square().mean()


@pytest.mark.parametrize("rank", [0, 1, 24])
def test_rounding_survives_moments_that_cannot_be_inverted(rank: int) -> None:
    x = correlated()[:rank]
    found = round_columns(torch.randn(8, 24).double(), x.T @ x, Grid.of(Choice(4)), torch.full((1, 1), 0.3))
    assert bool(torch.isfinite(found).all())


# -- whole networks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", FORMATS, ids=str)
def test_a_reconstructed_network_is_nearer_on_samples_it_never_saw(mixed: Mixed, choice: Choice) -> None:
    x = images(256, 1)
    compressed = compressed_by(mixed, choice, x)
    plain = distance(mixed, compressed, images(256, 2))
    Reconstruction(mixed, [x[:128], x[128:]])(compressed)
    assert distance(mixed, compressed, images(256, 2)) < 0.5 * plain


@pytest.mark.parametrize("choice", FORMATS, ids=str)
def test_the_file_holds_what_was_reconstructed(mixed: Mixed, choice: Choice) -> None:
    x = images(64, 1)
    compressed = compressed_by(mixed, choice, x)
    Reconstruction(mixed, [x])(compressed)
    weights = dict(compressed.network.named_parameters())
    with torch.no_grad():
        assert all(torch.allclose(value, weights[name], rtol=1e-5) for name, value in compressed.quantized().items())
    back = build(read(pack(compressed)), Mixed())
    for name, value in back.named_parameters():
        if name in compressed.names:
            assert torch.allclose(value, weights[name], rtol=1e-5), name


def test_what_cannot_be_reconstructed_is_rounded_and_named(mixed: Mixed) -> None:
    x = images(32, 1)
    compressed = compressed_by(mixed, FORMATS[0], x)
    before = compressed.quantized()["up.weight"].detach().clone()
    left = Reconstruction(mixed, [x])(compressed)
    assert left == {"up.weight": "a kernel of ConvTranspose2d is rounded by itself"}
    assert torch.equal(dict(compressed.network.named_parameters())["up.weight"], before)


def test_means_are_right_behind_every_layer_with_a_bias_or_norm(mixed: Mixed) -> None:
    x = images(256, 1)
    compressed = compressed_by(mixed, FORMATS[0], x)
    Reconstruction(mixed, [x])(compressed)
    seen: dict[str, list[Tensor]] = {"layers.0.norm": [], "head": []}
    for network in (mixed, compressed.network):
        handles = [
            network.get_submodule(path).register_forward_hook(lambda m, i, out, path=path: seen[path].append(out.mean(0)))
            for path in seen
        ]
        with torch.no_grad():
            network(x)
        for handle in handles:
            handle.remove()
    for wanted, found in seen.values():
        means = [t.flatten(1).mean(1) if t.ndim > 1 else t for t in (wanted, found)]
        assert torch.allclose(means[0], means[1], atol=0.02)


@pytest.mark.parametrize("keep", [0.75, 0.5])
def test_pruned_networks_are_compensated(keep: float) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(12, 48), *[nn.Sequential(nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 48)) for _ in range(2)]
    )
    basis = torch.randn(4, 12)
    x, fresh = torch.randn(512, 4) @ basis, torch.randn(256, 4) @ basis
    compressed = compressed_by(network.eval(), Choice(6, keep, NumberType.INT, Granularity.LEARNED), x)
    assert any(isinstance(m, ScatterLinear) for m in compressed.network.modules())
    plain = distance(network, compressed, fresh)
    Reconstruction(network, [x])(compressed)
    assert distance(network, compressed, fresh) < 0.7 * plain


def test_pruned_convolutions_in_groups_are_compensated(mixed: Mixed) -> None:
    x = images(256, 1)
    compressed = compressed_by(mixed, Choice(6, 0.75, NumberType.INT, Granularity.LEARNED), x)
    assert any(isinstance(m, ScatterConv2d) for m in compressed.network.modules())
    plain = distance(mixed, compressed, images(256, 2))
    Reconstruction(mixed, [x])(compressed)
    assert distance(mixed, compressed, images(256, 2)) < 0.7 * plain


class Routed(nn.Module):
    """Rows go where their first weight sends them: how many there are differs from network to network."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(6, 1)
        self.expert = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        chosen = self.gate(x)[:, 0] > 0
        x[chosen] = self.expert(x[chosen])
        return x


def test_layers_that_are_routed_differently_teach_nothing() -> None:
    torch.manual_seed(1)
    network, x = Routed().eval(), torch.randn(64, 6)
    compressed = compressed_by(network, Choice(2, 1.0, NumberType.INT, Granularity.LEARNED), x)
    with torch.no_grad():
        compressed.network.gate.bias.add_(10.0)  # all rows
    found = gather(network, compressed.network, find_layers(compressed, x[:2])[0][1:], [x], 0)
    assert found["expert.weight"].reason() == DIFFERS


@pytest.mark.parametrize("bias, reason", [(-100.0, "no calibration sample reaches it"), (100.0, "")])
def test_layers_that_no_sample_reaches_are_rounded_and_named(bias: float, reason: str) -> None:
    torch.manual_seed(1)
    network, x = Routed().eval(), torch.randn(64, 6)
    with torch.no_grad():
        network.gate.bias.fill_(bias)
    compressed = compressed_by(network, FORMATS[0], x)
    left = Reconstruction(network, [x])(compressed)
    assert left == ({"expert.weight": reason} if reason else {})
    assert all(bool(torch.isfinite(p).all()) for p in compressed.network.parameters())


class Standardised(nn.Conv2d):
    """Its weight is brought to a deviation of one at each call, as in networks without norms."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight / self.weight.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class PadsItself(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


@pytest.mark.parametrize("layer", [Standardised, PadsItself])
def test_a_module_that_does_more_than_multiply_is_rounded_and_named(layer: type[nn.Conv2d]) -> None:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), layer(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    x = images(8, 0)
    network.eval()(x)
    compressed = compressed_by(network, Choice(4, 1.0, granularity=Granularity.PER_CHANNEL), x)
    rounded = compressed.quantized()["1.weight"].clone()
    assert Reconstruction(network, [x])(compressed) == {"1.weight": NO_PRODUCT}
    assert torch.equal(compressed.quantized()["1.weight"], rounded)


def test_a_network_that_draws_random_numbers_is_compared_with_the_same_ones() -> None:
    class Chance(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x + torch.rand_like(x))

    torch.manual_seed(1)
    network, x = Chance().eval(), torch.randn(64, 6)
    compressed = compressed_by(network, FORMATS[0], x)
    layers = find_layers(compressed, x[:2])[0]
    with torch.no_grad():
        compressed.network.inner.weight.copy_(network.inner.weight)
    moments = gather(network, compressed.network, layers, [x], 0)["inner.weight"]
    weight, bias = network.inner.weight.double(), network.inner.bias.double()
    expected = weight @ moments.inputs[0] + bias[:, None] * moments.input_sum
    torch.testing.assert_close(moments.cross[0], expected, rtol=1e-4, atol=1e-3)


def test_what_is_not_finite_teaches_nothing() -> None:
    moments = Moments()
    moments.add(torch.ones(1, 4, 3), torch.full((4, 2), float("inf")), None)
    assert moments.reason() == "not all that it reads or gives is finite"


def test_wide_results_are_looked_at_in_fewer_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hirelc.compression.moments.VALUES", 1000)
    at = draw_positions(nn.Linear(2, 50), torch.zeros(4, 100, 50), torch.Generator().manual_seed(0))
    assert len(at[0]) == 20


def test_shared_modules_are_seen_at_every_call() -> None:
    torch.manual_seed(0)
    shared = nn.Linear(8, 8)
    network = nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(8, 3)).eval()
    x = torch.randn(64, 8)
    compressed = compressed_by(network, FORMATS[0], x)
    layers, left = find_layers(compressed, x[:2])
    assert not left and {layer.name: layer.calls for layer in layers} == {"0.weight": 2, "4.weight": 1}
    assert gather(network, compressed.network, layers, [x], 0)["0.weight"].count == 128


def test_a_weight_of_two_modules_is_rounded_and_named() -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    network[2].weight = network[0].weight
    x = torch.randn(64, 8)
    compressed = compressed_by(network, FORMATS[0], x)
    assert Reconstruction(network, [x])(compressed) == {"0.weight": "the same tensor serves other modules too"}


def test_the_same_seed_gives_the_same_file(mixed: Mixed) -> None:
    x = images(64, 1)
    files = []
    for _ in range(2):
        compressed = compressed_by(mixed, FORMATS[0], x)
        Reconstruction(mixed, [x], seed=3)(compressed)
        files.append(pack(compressed))
    assert files[0] == files[1]

"""The file: what goes in comes out to the bit, and the module that is built from it is an ordinary one."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from files import FORMATS, Parts, compress, mixed, of_zoo, randomly
from torch import nn

import hirelc
from hirelc.artifact.container import HEADER, MAGIC, VERSION, pack, read, write
from hirelc.artifact.load import load
from hirelc.compression.activations import attached
from hirelc.compression.apply import CompressedNetwork
from hirelc.errors import FormatError, NetworkError
from hirelc.network.norms import fold_batchnorms
from hirelc.policy import Choice, Granularity, NumberType
from zoo import BY_NAME

ENTRY = BY_NAME["resnet-basic"]
GOLDEN = sorted((Path(__file__).parent.parent / "golden").glob("*.hirelc"))


@pytest.fixture(scope="module")
def compressed() -> CompressedNetwork:
    """Pruned both ways; every section of the container is there."""
    return of_zoo("resnet-basic")


@pytest.fixture(scope="module")
def data(compressed: CompressedNetwork) -> bytes:
    return pack(compressed)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize(("kind", "granularity"), FORMATS)
def test_every_format_reads_back_to_the_bit(bits: int, kind: NumberType, granularity: Granularity) -> None:
    made = of_zoo("signal", lambda i: Choice(bits, (1.0, 0.6)[i % 2], kind, granularity))
    weights = dict(load(pack(made), BY_NAME["signal"].factory).named_parameters())
    for name, value in made.quantized().items():
        assert torch.equal(weights[name], value), name


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_writing_what_was_read_gives_the_same_file(path: Path) -> None:
    assert Parts.of(write(read(path))).words == Parts.of(path.read_bytes()).words
    again = write(read(path))
    assert write(read(again)) == again


@pytest.mark.parametrize("name", ["resnet-basic", "mobilenet", "vit-torchvision", "tied"])
def test_writing_what_was_read_from_a_network(name: str) -> None:
    data = pack(of_zoo(name, randomly(2)))
    assert write(read(data)) == data


def test_the_header_is_as_specified(data: bytes) -> None:
    assert data[:8] == MAGIC == bytes.fromhex("89484952454C430A")
    assert int.from_bytes(data[8:10], "little") == VERSION == 3
    assert HEADER.size == 40
    parts = Parts.of(data)
    assert parts.pack() == data
    assert next(iter(parts.fields)) == "writer"


def test_same_network_same_bytes(compressed: CompressedNetwork, data: bytes) -> None:
    assert pack(compressed) == data


def test_packing_changes_nothing(compressed: CompressedNetwork) -> None:
    before = {name: tensor.clone() for name, tensor in compressed.state_dict().items()}
    pack(compressed)
    assert all(torch.equal(tensor, before[name]) for name, tensor in compressed.state_dict().items())


def test_a_path_or_bytes(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.hirelc"
    path.write_bytes(data)
    first, second, third = (hirelc.load(source, ENTRY.factory) for source in (path, str(path), data))
    x = ENTRY.inputs()
    assert torch.equal(first(x), second(x))
    assert torch.equal(first(x), third(x))


def test_the_loaded_network_is_an_ordinary_module(data: bytes) -> None:
    network = load(data, ENTRY.factory)
    assert type(network) is type(ENTRY.factory())
    assert not any(module.training for module in network.modules())
    assert all(p.dtype is torch.float32 for p in network.parameters())
    network.load_state_dict(network.state_dict())
    network.train()(ENTRY.inputs()).sum().backward()  # it can be trained on


def test_norms_and_biases_are_within_half_a_step(compressed: CompressedNetwork, data: bytes) -> None:
    folded = copy.deepcopy(compressed.network)
    fold_batchnorms(folded)
    loaded = load(data, ENTRY.factory).state_dict()
    layout = read(data).layout
    assert {t.kind for t in layout.rest} == {"coded"}
    for tensor in layout.rest:
        expected = folded.state_dict()[tensor.name].float()
        deviation = float((expected - expected.median()).abs().mean())
        # half a step; the step is an eighth of the mean deviation, rounded to the grid (2^(1/16)) and to float32
        allowed = deviation / 8 / 2 * 2 ** (1 / 16) + float(expected.abs().max()) * 2**-20
        assert float((loaded[tensor.name] - expected).abs().max()) <= allowed, tensor.name


def test_folding_changes_no_output_beyond_rounding(compressed: CompressedNetwork) -> None:
    folded = copy.deepcopy(compressed.network)
    dropped = fold_batchnorms(folded)
    assert torch.allclose(folded(ENTRY.inputs()), compressed.network(ENTRY.inputs()), atol=1e-5)
    assert {"bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked"} <= dropped


def test_activations_come_back(tmp_path: Path) -> None:
    made = of_zoo("resnet-basic", lambda i: Choice(8), activations=True)
    assert made.sites()
    network = load(pack(made), ENTRY.factory)
    assert attached(network) == made.sites() or set(attached(network)) == set(made.sites())
    with torch.no_grad():
        found, expected = network(ENTRY.inputs()), made(ENTRY.inputs())
    assert torch.allclose(found, expected, atol=0.05 * float(expected.abs().max()))


def test_batchnorms_without_weights_or_statistics_survive() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, 4)
            self.plain = nn.BatchNorm2d(6, affine=False)
            self.batch = nn.BatchNorm2d(6, track_running_stats=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(self.batch(self.b(self.plain(self.a(x)))).mean((2, 3)))

    torch.manual_seed(0)
    network = Odd().eval()
    network.plain.running_mean.normal_()
    network.plain.running_var.uniform_(0.5, 2)
    x = torch.randn(4, 3, 8, 8)
    made = compress(network, x, lambda i: Choice(8, 0.6))
    assert torch.allclose(load(pack(made), Odd)(x), made(x), atol=0.02)


def test_state_of_other_types_survives() -> None:
    class Buffers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 4)
            self.register_buffer("index", torch.arange(8).flip(0))
            self.register_buffer("mask", torch.tensor([True, False] * 4))
            self.register_buffer("huge", torch.tensor([1e6, -3e5]))
            self.register_buffer("tiny", torch.tensor([1e-7, 2e-9]))
            self.register_buffer("empty", torch.zeros(0, 3))
            self.register_buffer("scalar", torch.tensor(0.5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x)[:, self.index] * self.mask) * self.huge.sum() * self.tiny.sum() * self.scalar

    network = Buffers().eval()
    loaded = load(pack(compress(network, torch.randn(2, 6), lambda i: Choice(8))), Buffers)
    for name, buffer in network.named_buffers():
        assert torch.equal(dict(loaded.named_buffers())[name], buffer), name


def test_ones_and_zeros_stay_exact() -> None:
    class Fresh(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 4)
            nn.init.constant_(self.b.bias, 0.1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.norm(self.a(x)))

    torch.manual_seed(0)
    loaded = load(pack(compress(Fresh().eval(), torch.randn(2, 6), lambda i: Choice(8))), Fresh)
    assert torch.equal(loaded.norm.weight, torch.ones(8)) and torch.equal(loaded.norm.bias, torch.zeros(8))
    assert torch.allclose(loaded.b.bias, torch.full((4,), 0.1), rtol=2**-10)


def test_a_network_of_zeros_can_be_stored() -> None:
    """A million equal weights take next to nothing, and are not mistaken for an attack."""
    network = nn.Sequential(nn.Linear(1000, 1000), nn.ReLU(), nn.Linear(1000, 4)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    data = pack(compress(network, torch.randn(2, 1000), lambda i: Choice(4)))
    assert len(data) < 2000
    assert not any(p.any() for p in load(data, lambda: copy.deepcopy(network)).parameters())


@pytest.mark.parametrize("name", ["conv1.weight", "layer1.0.bn1.weight", "fc.bias"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_not_written(name: str, value: float) -> None:
    made = of_zoo("resnet-basic", lambda i: Choice(4))
    with torch.no_grad():
        dict(made.network.named_parameters())[name].view(-1)[0] = value
    with pytest.raises(FormatError, match=name):
        pack(made)


# -- another network than the file's -----------------------------------------------------------------------


@pytest.mark.parametrize(("name", "tensor"), [("vgg", r"no tensor 'conv1\.weight'"), ("resnet-bottleneck", r"conv3\.weight")])
def test_a_factory_of_another_network(data: bytes, name: str, tensor: str) -> None:
    with pytest.raises(FormatError, match=tensor):
        load(data, BY_NAME[name].factory)


def with_head(head: nn.Module) -> nn.Module:
    network = ENTRY.factory()
    network.fc = head
    return network


def test_the_tensor_that_differs_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "net.hirelc"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"net\.hirelc: fc\.weight.*\(11, 16\).*\(10, 16\)"):
        load(path, lambda: with_head(nn.Linear(16, 11)))
    with pytest.raises(FormatError, match=r"'fc\.bias'"):
        load(data, lambda: with_head(nn.Linear(16, 10, bias=False)))
    with pytest.raises(FormatError, match=r"conv1\.weight"):
        wide = ENTRY.factory()
        wide.conv1 = nn.Conv2d(3, 8, 5, 1, 2, bias=False)
        load(data, lambda: wide)

    def more() -> nn.Module:
        network = ENTRY.factory()
        network.extra = nn.Linear(2, 2)
        return network

    with pytest.raises(FormatError, match=r"extra\.weight"):
        load(data, more)
    with pytest.raises(NetworkError, match="must return the network"):
        load(data, lambda: "a network")  # type: ignore[arg-type,return-value]


def test_pruned_widths_that_differ_are_named(data: bytes) -> None:
    """The file scatters 4 of 8 rows: a kernel of 16 is another network, though every slim shape could be cut from it."""
    wide = ENTRY.factory()
    wide.layer1[1].conv2 = nn.Conv2d(8, 16, 3, 1, 1, bias=False)
    with pytest.raises(FormatError, match=r"layer1\.1\.conv2\.weight"):
        load(data, lambda: wide)


def test_half_precision_factories_get_float32(data: bytes) -> None:
    network = load(data, lambda: ENTRY.factory().half())
    assert all(p.dtype is torch.float32 for p in network.parameters())
    assert np.isfinite(network(ENTRY.inputs()).detach().numpy()).all()


def test_the_choices_are_kept(compressed: CompressedNetwork, data: bytes) -> None:
    found = {k.name: k.choice for k in read(data).layout.kernels}
    for name, choice in compressed.policy.choices:
        assert (found[name].bits, found[name].number_type, found[name].granularity) == (
            choice.bits,
            choice.number_type,
            choice.granularity,
        )
    assert {c.bits for c in found.values()} == set(range(2, 9)) == {mixed(i).bits for i in range(9)}

"""The file: what goes in comes out to the bit, and nothing malformed gets through."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import nn

import hirelc
from hirelc import cost
from hirelc.artifact.container import _digest, pack, read
from hirelc.artifact.load import load
from hirelc.compression.apply import CompressedNetwork, apply
from hirelc.errors import FormatError, NetworkError
from hirelc.network.norms import fold_batchnorms
from hirelc.network.trace import trace
from hirelc.policy import Choice, Granularity, NumberType, Policy
from zoo import BY_NAME, build

ENTRY = BY_NAME["resnet-basic"]
Arrays = dict[str, np.ndarray]


def compressed_with(choice: Callable[[int], Choice], name: str = "resnet-basic") -> CompressedNetwork:
    entry = BY_NAME[name]
    network = build(entry)
    spec = trace(network, entry.inputs())
    weights = {k.name: dict(network.named_parameters())[k.name].detach() for k in spec.kernels}
    policy = Policy.of({k.name: choice(i) for i, k in enumerate(spec.kernels)})
    return apply(network, spec, policy, {n: w.square() for n, w in weights.items()}).eval()


@pytest.fixture(scope="module")
def compressed() -> CompressedNetwork:
    """Pruned both ways; every section of the container is there."""
    formats = list(itertools.product(NumberType, Granularity))
    return compressed_with(lambda i: Choice(2 + i % 7, 0.5, *formats[i % len(formats)]))


@pytest.fixture(scope="module")
def data(compressed: CompressedNetwork) -> bytes:
    return pack(compressed)


def rewritten(data: bytes, change: Callable[[Arrays], None]) -> bytes:
    """The same file with some sections changed and a digest that fits."""
    arrays = {name: array.copy() for name, array in safetensors.numpy.load(data).items()}
    change(arrays)
    arrays["digest"] = _digest(arrays)
    return safetensors.numpy.save(arrays)


def with_manifest(change: Callable[[dict[str, Any]], None]) -> Callable[[Arrays], None]:
    def edit(arrays: Arrays) -> None:
        fields = json.loads(zlib.decompress(arrays["manifest"].tobytes()))
        change(fields)
        arrays["manifest"] = np.frombuffer(zlib.compress(json.dumps(fields).encode()), dtype=np.uint8)

    return edit


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize(("kind", "granularity"), list(itertools.product(NumberType, Granularity)))
def test_every_format_reads_back_to_the_bit(bits: int, kind: NumberType, granularity: Granularity) -> None:
    made = compressed_with(lambda i: Choice(bits, (1.0, 0.6)[i % 2], kind, granularity), "signal")
    data = pack(made)
    assert len(data) == cost.file_bytes(made.spec, made.policy)
    weights = dict(load(data, BY_NAME["signal"].factory).named_parameters())
    for name, value in made.quantized().items():
        assert torch.equal(weights[name], value), name


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


def test_norms_and_biases_are_within_fp16_rounding(compressed: CompressedNetwork, data: bytes) -> None:
    import copy

    folded = copy.deepcopy(compressed.network)
    fold_batchnorms(folded)
    loaded = load(data, ENTRY.factory).state_dict()
    rest = [t for t in read(data).layout.rest]
    assert rest
    for tensor in rest:
        expected = folded.state_dict()[tensor.name]
        assert torch.allclose(loaded[tensor.name], expected.float(), rtol=2**-11, atol=2**-24), tensor.name


def test_folding_a_batchnorm_changes_no_output() -> None:
    network = build(ENTRY)
    before = network(ENTRY.inputs())
    dropped = fold_batchnorms(network)
    assert torch.allclose(network(ENTRY.inputs()), before, atol=1e-5)
    assert {"bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked"} <= dropped


def test_batchnorms_without_weights_or_statistics_survive() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, 4)
            self.plain = nn.BatchNorm2d(6, affine=False)
            self.batch = nn.BatchNorm2d(6, track_running_stats=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(self.batch(self.b(self.plain(self.a(x)))).mean((2, 3)))

    network = Odd().eval()
    network.plain.running_mean.normal_()
    network.plain.running_var.uniform_(0.5, 2)
    x = torch.randn(4, 3, 8, 8)
    spec = trace(network, x)
    policy = Policy.of({k.name: Choice(8, 0.6) for k in spec.kernels})
    made = apply(network, spec, policy, {k.name: torch.rand(k.shape) for k in spec.kernels}).eval()
    loaded = load(pack(made), Odd)
    assert torch.allclose(loaded(x), made(x), atol=5e-3)
    assert len(pack(made)) == cost.file_bytes(spec, made.policy)


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
    spec = trace(network, torch.randn(2, 6))
    made = apply(
        network, spec, Policy.of({k.name: Choice(8) for k in spec.kernels}), {k.name: torch.rand(k.shape) for k in spec.kernels}
    )
    data = pack(made)
    assert len(data) == cost.file_bytes(spec, made.policy)
    loaded = load(data, Buffers)
    for name, buffer in network.named_buffers():
        assert torch.equal(dict(loaded.named_buffers())[name], buffer), name


# -- files that are not right ------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_is_noticed(data: bytes) -> None:
    positions = [*range(0, 64, 7), *range(64, len(data), max(1, len(data) // 150)), len(data) - 1]
    for position in positions:
        damaged = bytearray(data)
        damaged[position] ^= 1 << (position % 8)
        with pytest.raises(FormatError):
            load(bytes(damaged), ENTRY.factory)


def test_a_file_cut_short_anywhere_is_noticed(data: bytes) -> None:
    for length in [*range(40), *range(40, len(data), len(data) // 60), len(data) - 1]:
        with pytest.raises(FormatError):
            read(data[:length])
    with pytest.raises(FormatError):
        read(data + b"\0")


def test_a_plain_safetensors_file() -> None:
    with pytest.raises(FormatError, match="no manifest"):
        read(safetensors.numpy.save({"weight": np.zeros(3, dtype=np.float32)}))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"nothing\.hirelc"):
        read(tmp_path / "nothing.hirelc")
    with pytest.raises(FormatError):
        read(tmp_path)


def garbage(arrays: Arrays) -> None:
    arrays["manifest"] = np.frombuffer(b"garbage", dtype=np.uint8)


def no_object(arrays: Arrays) -> None:
    arrays["manifest"] = np.frombuffer(zlib.compress(b"[1, 2]"), dtype=np.uint8)


def deep(arrays: Arrays) -> None:
    arrays["manifest"] = np.frombuffer(zlib.compress(b"[" * 100_000), dtype=np.uint8)


def bomb(arrays: Arrays) -> None:
    arrays["manifest"] = np.frombuffer(zlib.compress(b" " * (80 * 2**20), 9), dtype=np.uint8)


def missing(arrays: Arrays) -> None:
    del arrays["scales"]


def extra(arrays: Arrays) -> None:
    arrays["more"] = np.zeros(3, dtype=np.uint8)


def wrong_type(arrays: Arrays) -> None:
    arrays["scales"] = arrays["scales"].astype(np.float32)


def unmasked(arrays: Arrays) -> None:
    arrays["masks"][0] ^= 0b10000000


def zero_scale(arrays: Arrays) -> None:
    arrays["scales"][3] = 0.0


def negative_scale(arrays: Arrays) -> None:
    arrays["scales"][0] = -1.0


def endless_scale(arrays: Arrays) -> None:
    arrays["scales"][0] = np.inf


def set_format(version: Any) -> Callable[[dict[str, Any]], None]:
    return lambda fields: fields.update(format=version)


def first_kernel(position: int, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda fields: fields["kernels"][0].__setitem__(position, value)


def first_coupling(position: int, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda fields: fields["couplings"][0].__setitem__(position, value)


def first_member(position: int, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda fields: fields["couplings"][0][2][0].__setitem__(position, value)


def first_rows(position: int, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda fields: fields["rows"][0].__setitem__(position, value)


@pytest.mark.parametrize("change", [garbage, no_object, deep, bomb, missing, extra, wrong_type], ids=lambda f: f.__name__)
def test_malformed_containers(data: bytes, change: Callable[[Arrays], None]) -> None:
    with pytest.raises(FormatError):
        read(rewritten(data, change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unmasked, "a mask keeps"),
        (zero_scale, "positive and finite"),
        (negative_scale, "positive and finite"),
        (endless_scale, "positive and finite"),
        (with_manifest(set_format(2)), "reads format 1"),
        (with_manifest(set_format(None)), "reads format 1"),
        (with_manifest(set_format(True)), "reads format 1"),
        (with_manifest(lambda f: f.pop("kernels")), "breaks its own rules"),
        (with_manifest(lambda f: f["kernels"].append(f["kernels"][0])), "names a tensor twice"),
        (with_manifest(first_kernel(0, 7)), "where a name belongs"),
        (with_manifest(first_kernel(1, [-1, 3, 3, 3])), "where a count"),
        (with_manifest(lambda f: f["kernels"].append(["x", [0, 2], 0, 8, "int", "per_channel"])), "where a count"),
        (with_manifest(first_kernel(1, [2**39, 2**39])), "larger than any"),
        (with_manifest(first_kernel(1, [8, 3, 3, 4])), "items of"),
        (with_manifest(first_kernel(2, 4)), "no dimension 4"),
        (with_manifest(first_kernel(3, 9)), "breaks its own rules"),
        (with_manifest(first_kernel(4, "complex")), "breaks its own rules"),
        (with_manifest(lambda f: f["rest"][0].__setitem__(2, "float64")), "unknown type"),
        (with_manifest(first_coupling(0, 0)), "where a count"),
        (with_manifest(first_coupling(1, 99)), "cannot keep"),
        (with_manifest(first_member(0, 10**6)), "breaks its own rules"),
        (with_manifest(first_rows(0, 10**6)), "breaks its own rules"),
        (with_manifest(first_rows(2, 1)), "do not fit its shape"),
    ],
)
def test_malformed_contents_are_named(data: bytes, change: Callable[[Arrays], None], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read(rewritten(data, change))


@pytest.mark.parametrize(
    "change",
    [
        first_member(0, "no.such.tensor"),
        first_member(0, "relu"),
        first_member(1, 5),
        first_member(2, [10**6]),
        first_member(2, []),
        first_member(3, 10**6),
        lambda f: f["couplings"][0].__setitem__(3, [["no.such", "heads", 1]]),
        lambda f: f["couplings"][0].__setitem__(3, [["layer1", "forward", 1]]),
        lambda f: f["couplings"][0].__setitem__(3, [["layer1.0.conv1", "weight", 1]]),
        first_member(3, 2**39),
        lambda f: f["rows"][0].__setitem__(1, 2**20),
    ],
)
def test_surgery_that_does_not_fit_is_refused(data: bytes, change: Callable[[dict[str, Any]], None]) -> None:
    with pytest.raises(FormatError):
        load(rewritten(data, with_manifest(change)), ENTRY.factory)


def test_a_code_beyond_the_levels() -> None:
    data = pack(compressed_with(lambda i: Choice(2)))  # ternary: code 3 means nothing

    def change(arrays: Arrays) -> None:
        arrays["codes"][0] = 0b11000000

    with pytest.raises(FormatError, match=r"conv1\.weight: a code beyond"):
        read(rewritten(data, change))


@pytest.mark.parametrize(("name", "tensor"), [("vgg", r"no tensor 'conv1\.weight'"), ("resnet-bottleneck", r"conv3\.weight")])
def test_a_factory_of_another_network(data: bytes, name: str, tensor: str) -> None:
    with pytest.raises(FormatError, match=tensor):
        load(data, BY_NAME[name].factory)


def test_a_factory_of_other_widths_or_more(data: bytes) -> None:
    def wider() -> nn.Module:
        network = ENTRY.factory()
        network.fc = nn.Linear(16, 11)
        return network

    def more() -> nn.Module:
        network = ENTRY.factory()
        network.extra = nn.Linear(2, 2)
        return network

    with pytest.raises(FormatError, match=r"fc\.weight"):
        load(data, wider)
    with pytest.raises(FormatError, match=r"extra\.weight"):
        load(data, more)
    with pytest.raises(NetworkError, match="must return the network"):
        load(data, lambda: "a network")  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("name", ["conv1.weight", "layer1.0.bn1.weight", "fc.bias"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(name: str, value: float) -> None:
    made = compressed_with(lambda i: Choice(4))
    with torch.no_grad():
        dict(made.network.named_parameters())[name].view(-1)[0] = value
    with pytest.raises(FormatError, match=name):
        pack(made)

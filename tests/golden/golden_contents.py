"""The contents of the golden files, from formulas alone: no network, no generator that another version could change."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from hirelc.artifact.contents import Contents
from hirelc.compression.activations import ActivationSite
from hirelc.compression.grid import numbers
from hirelc.compression.quantize import Quantized
from hirelc.compression.rest import CodedTensor
from hirelc.formats import has_zero_point, levels_of
from hirelc.layout import Layout, StoredCoupling, StoredKernel, StoredRows, StoredTensor
from hirelc.network.spec import AttributeChange, Coupling, Member
from hirelc.network.surgery import Kept
from hirelc.policy import Choice, Granularity, NumberType


class Numbers:
    """A linear congruential generator."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def below(self, n: int) -> int:
        self.state = (self.state * 1103515245 + 12345) % 2**31
        return (self.state >> 12) % n

    def peaked(self, n: int, width: int) -> int:
        """Around the middle of 0 .. n-1."""
        return min(max(n // 2 + sum(self.below(2 * width + 1) - width for _ in range(3)), 0), n - 1)


def kernel(stored: StoredKernel, draw: Numbers, width: int | None = None) -> Quantized:
    """Codes spread over all levels, or bell-shaped; the first and the last level are among them."""
    count = len(levels_of(stored.choice))
    codes = [draw.below(count) if width is None else draw.peaked(count, width) for _ in range(stored.codes)]
    codes[0], codes[-1] = 0, count - 1
    rows = torch.tensor(codes, dtype=torch.uint8).view(stored.shape[stored.channel_dim], -1)
    scale = numbers(torch.tensor([draw.below(40) - 40 for _ in range(stored.scales)])).view(-1, 1)
    return Quantized(stored.choice, rows, scale, draw.below(count) if has_zero_point(stored.choice) else None)


def whole(kernels: tuple[StoredKernel, ...], draw: Numbers) -> Contents:
    layout = Layout(kernels, (), (), ())
    return Contents(layout, Kept(), {k.name: kernel(k, draw) for k in kernels}, {})


def number_format(number_type: NumberType, granularity: Granularity) -> Contents:
    """A kernel for every bit-width, the channel dimension now first, now second."""
    choices = [Choice(bits, 1.0, number_type, granularity) for bits in range(2, 9)]
    kernels = tuple(StoredKernel(f"b{c.bits}.weight", (3, 4, 2), c.bits % 2, c) for c in choices)
    return whole(kernels, Numbers(1))


def pruned() -> Contents:
    """Couplings (numbered and unstored tensors, several starts, heads) and scattered rows."""
    draw = Numbers(2)
    kernels = (
        StoredKernel("a.weight", (5, 3), 0, Choice(3, 1.0, NumberType.INT, Granularity.PER_CHANNEL)),
        StoredKernel("b.weight", (4, 5), 0, Choice(4, 1.0, NumberType.INT, Granularity.UNIFORM)),
        StoredKernel("qkv.weight", (12, 4), 0, Choice(2, 1.0, NumberType.INT, Granularity.LEARNED)),
        StoredKernel("all.weight", (2, 2), 0, Choice(2, 1.0, NumberType.INT, Granularity.LOG)),
    )
    rest = (StoredTensor("a.bias", (5,), "coded"),)
    places = (("a.weight", 0), ("a.bias", 0), ("bn.running_mean", 0), ("b.weight", 1))
    plain = Coupling(8, tuple(Member(name, dim, (0,), 1) for name, dim in places))
    heads = Coupling(
        4,
        (Member("qkv.weight", 0, (0, 8, 16), 2), Member("all.weight", 1, (0,), 1)),
        (AttributeChange("attn", "heads", 1), AttributeChange("attn", "width", 2)),
    )
    rows = (StoredRows("b.weight", 9, 4), StoredRows("all.weight", 2, 2))
    layout = Layout(kernels, rest, (StoredCoupling(plain, 5), StoredCoupling(heads, 2)), rows)
    kept = Kept({0: (0, 2, 3, 6, 7), 1: (1, 2)}, {"b.weight": (0, 4, 7, 8), "all.weight": (0, 1)})
    values = CodedTensor(-43, 3, np.array([-3, 0, 1, 4, -1], dtype=np.int32))
    return Contents(layout, kept, {k.name: kernel(k, draw) for k in kernels}, {"a.bias": values})


def rest() -> Contents:
    """Coded tensors of every kind, raw ones of every type; no kernel."""
    draw = Numbers(3)
    stored = {
        "normal": CodedTensor(-30, 0, np.array([draw.peaked(41, 7) - 20 for _ in range(60)], dtype=np.int32)),
        "far": CodedTensor(5, 1_000_003, np.array([0, 1, -1, 7], dtype=np.int32)),
        "ones": CodedTensor(-80, 1024, np.zeros(6, dtype=np.int32)),
        "tiny": CodedTensor(-1000, 1, np.zeros(1, dtype=np.int32)),
        "huge": CodedTensor(1000, 1, np.zeros(1, dtype=np.int32)),
        "none": CodedTensor(0, 0, np.zeros(0, dtype=np.int32)),
        "half": np.array([[0.5, -2.0], [65504.0, 6e-8]], dtype=np.float16),
        "single": np.array([1e-30, -np.inf, np.pi], dtype=np.float32),
        "index": np.array([[-(2**62), 0, 5]], dtype=np.int64),
        "truth": np.array(1, dtype=np.int64),
    }
    shapes = {"normal": (3, 4, 5), "tiny": (), "huge": (1, 1), "none": (0, 7)}
    tensors = []
    for name, value in stored.items():
        if isinstance(value, CodedTensor):
            tensors.append(StoredTensor(name, shapes.get(name, (value.symbols.size,)), "coded"))
        else:
            tensors.append(StoredTensor(name, value.shape, str(value.dtype)))
    return Contents(Layout((), tuple(tensors), (), ()), Kept(), {}, stored)


def shared() -> Contents:
    """Enough bell-shaped codes that models are worth their tables and two kernels share one; names beyond ASCII."""
    draw = Numbers(4)
    eight = Choice(8, 1.0, NumberType.INT, Granularity.PER_CHANNEL)
    six = Choice(6, 1.0, NumberType.FLOAT, Granularity.UNIFORM)
    kernels = (
        StoredKernel("körper.weight", (8, 60), 0, eight),
        StoredKernel("kopf.weight", (4, 60), 0, eight),
        StoredKernel("fuß.weight", (6, 50), 1, six),
    )
    quantized = {k.name: kernel(k, draw, 3 if k.choice.bits == 8 else 8) for k in kernels}
    return Contents(Layout(kernels, (), (), ()), Kept(), quantized, {})


def contexts() -> Contents:
    """A convolution whose filters are smooth enough that its codes are told apart by their neighbours'."""
    random = np.random.default_rng(7)
    shape = (12, 8, 3, 3)
    signs = np.repeat(random.integers(-1, 2, (12 * 8, 1)), 9, axis=1)
    flips = random.random(signs.shape) < 0.15
    codes = np.where(flips, random.integers(-1, 2, signs.shape), signs) + 1
    stored = StoredKernel("conv.weight", shape, 0, Choice(2, 1.0, NumberType.INT, Granularity.LEARNED))
    rows = torch.from_numpy(codes.reshape(12, -1).astype(np.uint8))
    quantized = Quantized(stored.choice, rows, numbers(torch.full((12, 1), -40)), None)
    return Contents(Layout((stored,), (), (), ()), Kept(), {stored.name: quantized}, {})


def constant() -> Contents:
    """Kernels of one code each take no words at all."""
    choice = Choice(4, 1.0, NumberType.INT, Granularity.UNIFORM)
    kernels = (StoredKernel("zeros.weight", (6, 9), 0, choice), StoredKernel("same.weight", (2, 3), 1, choice))
    quantized = {
        "zeros.weight": Quantized(choice, torch.full((6, 9), 7, dtype=torch.uint8), numbers(torch.tensor([[-8]])), 7),
        "same.weight": Quantized(choice, torch.full((3, 2), 7, dtype=torch.uint8), numbers(torch.tensor([[-8]])), 0),
    }
    return Contents(Layout(kernels, (), (), ()), Kept(), quantized, {})


def activations() -> Contents:
    choice = Choice(4, 1.0, NumberType.INT, Granularity.PER_CHANNEL)
    kernels = (StoredKernel("a.weight", (2, 5), 0, choice),)
    sites = (ActivationSite("a", "input", 0.0078125, 0), ActivationSite("", "output", float(np.float32(0.1)), 255))
    return Contents(Layout(kernels, (), (), ()), Kept(), {k.name: kernel(k, Numbers(5)) for k in kernels}, {}, sites)


def _format(number_type: NumberType, granularity: Granularity) -> Callable[[], Contents]:
    return lambda: number_format(number_type, granularity)


GOLDEN: dict[str, Callable[[], Contents]] = {
    **{f"{kind}-{grain}": _format(kind, grain) for kind in NumberType for grain in Granularity},
    "pruned": pruned,
    "rest": rest,
    "shared": shared,
    "contexts": contexts,
    "constant": constant,
    "activations": activations,
    "empty": lambda: Contents(Layout((), (), (), ()), Kept(), {}, {}),
}

"""Where activations are quantized: at the input of every kernel, behind every convolution's BatchNorm and ReLU, and where
a linear layer's result goes into a product of activations (queries, keys and values of an attention).

A tensor is quantized where it is made when a module returns it, so that all who read it (a residual path too) read
the same; else at the outermost module that receives it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from hirelc.compression.dataflow import Flow, Key, Operation, record
from hirelc.network.kernels import CONVOLUTIONS, TRANSPOSED
from hirelc.network.surgery import ScatterProjection

Side = Literal["input", "output"]
CLIPS = {"relu": (0.0, math.inf), "relu6": (0.0, 6.0)}
PRODUCTS = ("scaled_dot_product_attention", "matmul", "__matmul__", "__rmatmul__", "bmm", "baddbmm", "einsum")


@dataclass(frozen=True)
class Place:
    """A site without its range.

    :param low: what reads the tensor clips it at `low` and `high`, and so does the quantizer
    :param group: places of one group share a range: they see the same values
    """

    module: str
    side: Side
    low: float
    high: float
    group: int


def find_places(network: nn.Module, kernels: Sequence[str], run: Callable[[], Any]) -> tuple[tuple[Place, ...], dict[str, str]]:
    """All places of a network, and the kernels that are left in float with the reason.

    :param run: calls the network on an example input
    """
    flow = record(network, run)
    finder = _Finder(flow)
    left = {}
    for name in kernels:
        path = name.rpartition(".")[0]
        module = network.get_submodule(path)
        calls = flow.calls(path)
        reason = _reason(flow, module, path, calls)
        if reason:
            left[name] = reason
            continue
        for operation in calls:
            finder.put(finder.at_input(path, operation.inputs[0]))
            if isinstance(module, CONVOLUTIONS):
                finder.put(finder.behind(operation.outputs[0]))
    linear = [n.rpartition(".")[0] for n in kernels if n not in left]
    for path in linear:
        if isinstance(network.get_submodule(path), (nn.Linear, ScatterProjection)):
            finder.put(finder.in_product(path))
    return finder.places(), left


def _reason(flow: Flow, module: nn.Module, path: str, calls: list[Operation]) -> str:
    if not calls:
        return "its module is not called: the network uses the weight by itself"
    if isinstance(module, nn.Embedding):
        return "its input are integers"
    if isinstance(module, TRANSPOSED):
        return "integer runtimes have no transposed convolution"
    if not any(name == path for name, _ in flow.received):
        return "its input is no floating-point tensor"
    return ""


def spot_behind(flow: Flow, path: str) -> tuple[str, Side] | None:
    """Module and side where the result of a layer that is called once is quantized, if it is."""
    calls = flow.calls(path)
    spot = _Finder(flow).behind(calls[0].outputs[0]) if len(calls) == 1 and calls[0].outputs else None
    return None if spot is None else (spot.module, spot.side)


@dataclass(frozen=True)
class _Spot:
    module: str
    side: Side
    low: float
    high: float
    key: Key  # the tensor whose values count, behind the clip


class _Finder:
    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.spots: list[_Spot] = []
        self.makers: dict[Key, list[str]] = {}
        for module, key in flow.returned:
            self.makers.setdefault(key, []).append(module)  # inner modules return first
        self.returns = Counter(module for module, _ in flow.returned)
        self.receives = Counter(module for module, _ in flow.received)

    def put(self, spot: _Spot | None) -> None:
        if spot is not None:
            self.spots.append(spot)

    def at_input(self, path: str, key: Key) -> _Spot:
        same = (key, self.origin(key))
        takers = [m for m, k in self.flow.received if k in same and (m in (path, "") or path.startswith(m + "."))]
        made = self.where_made(self.origin(key)) or self.where_made(key)
        once = next((m for m in takers if self.receives[m] == 1), None)
        if made is not None and (self.returns[made.module] == 1 or once is None):
            return made
        return _Spot(once or takers[0], "input", -math.inf, math.inf, key)

    def behind(self, key: Key) -> _Spot | None:
        """Behind the BatchNorm and the ReLU that alone read a convolution's result."""
        reader = self.flow.sole_consumer(key)
        if reader is not None and reader.kind == "batch_norm":
            key = reader.outputs[0]
            reader = self.flow.sole_consumer(key)
        if reader is not None and reader.kind in CLIPS:
            key = reader.outputs[0]
        return self.where_made(key)

    def in_product(self, path: str) -> _Spot | None:
        """At the result of a layer that is called once, when nothing but shapes stands between it and a product."""
        calls = self.flow.calls(path)
        if len(calls) != 1 or len(calls[0].outputs) != 1:
            return None
        made = calls[0].outputs[0]
        factors = (key for op in self.flow.operations if op.kind in PRODUCTS for key in op.inputs)
        return self.where_made(made) if any(self.origin(key) == made for key in factors) else None

    def where_made(self, key: Key) -> _Spot | None:
        """At a module that returns the tensor, or in front of the ReLU that makes it; better at one called once."""
        makers = self.makers.get(key, [])
        once = next((m for m in makers if self.returns[m] == 1), None)
        if once is None:
            before = self.before_clip(key)
            if before is not None and (not makers or self.returns[before.module] == 1):
                return before
        maker = once or next(iter(makers), None)
        return None if maker is None else _Spot(maker, "output", -math.inf, math.inf, key)

    def before_clip(self, key: Key) -> _Spot | None:
        """At the module whose result only a ReLU reads, the one that makes the tensor."""
        operation = self.flow.producer.get(key)
        if operation is None or operation.kind not in CLIPS or self.flow.sole_consumer(operation.inputs[0]) is not operation:
            return None
        makers = self.makers.get(operation.inputs[0], [])
        maker = next((m for m in makers if self.returns[m] == 1), next(iter(makers), None))
        return None if maker is None else _Spot(maker, "output", *CLIPS[operation.kind], key)

    def places(self) -> tuple[Place, ...]:
        """One per module and side; places that see the same values, or that one module joins, share a group."""
        groups = _Groups()
        merged: dict[tuple[str, Side], tuple[float, float]] = {}
        for spot in self.spots:
            at = (spot.module, spot.side)
            low, high = merged.get(at, (spot.low, spot.high))
            merged[at] = (min(low, spot.low), max(high, spot.high))
            groups.join(at, self.origin(spot.key))
        numbers: dict[object, int] = {}
        return tuple(Place(*at, *clip, numbers.setdefault(groups.root(at), len(numbers))) for at, clip in merged.items())

    def origin(self, key: Key) -> Key:
        """The tensor whose values these are: back through what only moves or picks values."""
        operation = self.flow.producer.get(key)
        while operation is not None and operation.kind == "same_values":
            key = operation.inputs[0]
            operation = self.flow.producer.get(key)
        return key


class _Groups:
    """Which things belong together (union-find)."""

    def __init__(self) -> None:
        self.parent: dict[object, object] = {}

    def root(self, item: object) -> object:
        while self.parent.setdefault(item, item) is not item:
            item = self.parent[item]
        return item

    def join(self, a: object, b: object) -> None:
        self.parent[self.root(a)] = self.root(b)

"""Files for tests: of networks of the zoo, and taken apart, changed and put together again with a digest that fits."""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from hirelc.compression.activations import observe
from hirelc.compression.apply import CompressedNetwork, apply
from hirelc.network.trace import trace
from hirelc.policy import Choice, Granularity, NumberType, Policy
from zoo import BY_NAME, build

HEADER = 40
FORMATS = list(itertools.product(NumberType, Granularity))


def mixed(index: int) -> Choice:
    """Every number type, granularity and bit-width in turn, half of the channels."""
    return Choice(2 + index % 7, 0.5, *FORMATS[index % len(FORMATS)])


def randomly(seed: int) -> Callable[[int], Choice]:
    random = np.random.default_rng(seed)

    def choice(_: int) -> Choice:
        kind, grain = FORMATS[int(random.integers(len(FORMATS)))]
        keep = float(random.choice([1.0, random.uniform(0.05, 1)]))
        return Choice(int(random.integers(2, 9)), keep, kind, grain)

    return choice


def compress(network: nn.Module, inputs: Any, choice: Callable[[int], Choice], activations: bool = False) -> CompressedNetwork:
    spec = trace(network, inputs)
    weights = {k.name: dict(network.named_parameters())[k.name].detach() for k in spec.kernels}
    policy = Policy.of({k.name: choice(i) for i, k in enumerate(spec.kernels)})
    made = apply(network, spec, policy, {n: w.square() for n, w in weights.items()}).eval()
    if activations:
        made.quantize_activations(observe(made.network, [k.name for k in spec.kernels], [inputs]).sites)
    return made


def of_zoo(name: str, choice: Callable[[int], Choice] = mixed, activations: bool = False) -> CompressedNetwork:
    entry = BY_NAME[name]
    return compress(build(entry), entry.inputs(), choice, activations)


@dataclass(frozen=True)
class Parts:
    """A file in parts; `manifest` is the deflated section."""

    manifest: bytes
    raw: bytes
    words: bytes
    version: int = 3
    flags: int = 0
    magic: bytes = b"\x89HIRELC\n"

    @classmethod
    def of(cls, data: bytes) -> Parts:
        m, r, w = struct.unpack_from("<III", data, 12)
        end = HEADER + m + r
        assert len(data) == end + 4 * w
        return cls(data[HEADER : HEADER + m], data[HEADER + m : end], data[end:])

    @property
    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(zlib.decompress(self.manifest))
        return fields

    @property
    def raw_at(self) -> int:
        return HEADER + len(self.manifest)

    @property
    def words_at(self) -> int:
        return self.raw_at + len(self.raw)

    def with_text(self, text: str | bytes) -> Parts:
        data = text.encode() if isinstance(text, str) else text
        return replace(self, manifest=zlib.compress(data, 9))

    def with_fields(self, fields: Any) -> Parts:
        return self.with_text(json.dumps(fields))

    def edited(self, change: Callable[[dict[str, Any]], Any]) -> Parts:
        fields = self.fields
        change(fields)
        return self.with_fields(fields)

    def pack(self) -> bytes:
        lengths = len(self.manifest), len(self.raw), len(self.words) // 4
        head = struct.pack("<8sHHIII", self.magic, self.version, self.flags, *lengths)
        return signed(head + bytes(16) + self.manifest + self.raw + self.words)


def signed(data: bytes) -> bytes:
    """The same file with the digest that it should have."""
    digest = hashlib.sha256(data[:24] + data[HEADER:]).digest()[:16]
    return data[:24] + digest + data[HEADER:]

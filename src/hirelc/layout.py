"""What goes where in a .hirelc file, from the network's structure and a policy alone.

`cost` adds up a layout, `artifact` writes one: there is one source of every length.
The format is specified in docs/format.md.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hirelc.formats import has_zero_point, per_channel
from hirelc.network.spec import Coupling, Kernel, NetworkSpec, Pruning
from hirelc.policy import Choice
from hirelc.version import __version__

FORMAT_VERSION = 1
DIGEST_BYTES = 16


@dataclass(frozen=True)
class StoredKernel:
    """One kernel in the file. `shape` is what is left after pruning."""

    name: str
    shape: tuple[int, ...]
    channel_dim: int
    choice: Choice

    @property
    def codes(self) -> int:
        return math.prod(self.shape)

    @property
    def code_bytes(self) -> int:
        return -(-self.codes * self.choice.bits // 8)

    @property
    def scales(self) -> int:
        return self.shape[self.channel_dim] if per_channel(self.choice) else 1

    @property
    def payload_bytes(self) -> int:
        return self.code_bytes + 2 * self.scales + has_zero_point(self.choice)


@dataclass(frozen=True)
class StoredTensor:
    """One tensor that is no kernel. `shape` is what is left after pruning."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def items(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class StoredRows:
    """A kernel whose missing rows are scattered back: `kept` of `full`."""

    kernel: str
    full: int
    kept: int


@dataclass(frozen=True)
class StoredCoupling:
    """A coupling that lost units, with all that a reader needs to repeat the surgery."""

    coupling: Coupling
    kept: int


@dataclass(frozen=True)
class Layout:
    """Everything about a file but its numbers."""

    kernels: tuple[StoredKernel, ...]
    rest: tuple[StoredTensor, ...]
    couplings: tuple[StoredCoupling, ...]
    rows: tuple[StoredRows, ...]

    @property
    def mask_bits(self) -> int:
        return sum(c.coupling.units for c in self.couplings) + sum(r.full for r in self.rows)

    def manifest(self) -> bytes:
        """The deflated JSON description that the file carries."""
        order = {name: i for i, name in enumerate([k.name for k in self.kernels] + [t.name for t in self.rest])}
        data = {
            "format": FORMAT_VERSION,
            "writer": __version__,
            "kernels": [
                [k.name, list(k.shape), k.channel_dim, k.choice.bits, k.choice.number_type.value, k.choice.granularity.value]
                for k in self.kernels
            ],
            "rest": [[t.name, list(t.shape), t.dtype] for t in self.rest],
            "couplings": [_coupling_json(c, order) for c in self.couplings],
            "rows": [[order[r.kernel], r.full, r.kept] for r in self.rows],
        }
        return zlib.compress(json.dumps(data, separators=(",", ":")).encode(), 9)

    def sections(self) -> dict[str, tuple[str, int]]:
        """Name -> (dtype, number of items) of each array in the container, empty ones left out."""
        counts = {
            "codes": ("U8", sum(k.code_bytes for k in self.kernels)),
            "digest": ("U8", DIGEST_BYTES),
            "float16": ("F16", sum(t.items for t in self.rest if t.dtype == "float16")),
            "float32": ("F32", sum(t.items for t in self.rest if t.dtype == "float32")),
            "int64": ("I64", sum(t.items for t in self.rest if t.dtype == "int64")),
            "manifest": ("U8", len(self.manifest())),
            "masks": ("U8", -(-self.mask_bits // 8)),
            "scales": ("F16", sum(k.scales for k in self.kernels)),
            "zero_points": ("U8", sum(has_zero_point(k.choice) for k in self.kernels)),
        }
        return {name: entry for name, entry in counts.items() if entry[1]}

    def file_bytes(self) -> int:
        """Exact length of the file."""
        width = {"U8": 1, "F16": 2, "F32": 4, "I64": 8}
        order = sorted(self.sections().items(), key=lambda item: (-width[item[1][0]], item[0]))
        header: dict[str, Any] = {}
        offset = 0
        for name, (dtype, items) in order:
            end = offset + items * width[dtype]
            header[name] = {"dtype": dtype, "shape": [items], "data_offsets": [offset, end]}
            offset = end
        length = len(json.dumps(header, separators=(",", ":")))
        return 8 + -(-length // 8) * 8 + offset


def _coupling_json(stored: StoredCoupling, order: Mapping[str, int]) -> list[Any]:
    coupling = stored.coupling
    # a tensor that the file leaves out (folded statistics) is named, the others are numbered
    members = [[order.get(m.tensor, m.tensor), m.dim, list(m.starts), m.width] for m in coupling.members]
    return [coupling.units, stored.kept, members, [[a.module, a.attribute, a.per_unit] for a in coupling.attributes]]


def layout_of(spec: NetworkSpec, policy: Mapping[str, Choice]) -> Layout:
    """The layout of the file that this (canonical) policy leads to."""
    units = {i: kept_units(spec, policy, i) for i in range(len(spec.couplings))}
    couplings = tuple(StoredCoupling(c, units[i]) for i, c in enumerate(spec.couplings) if units[i] < c.units)
    rows = tuple(
        StoredRows(k.name, k.channels, count)
        for k in spec.kernels
        if k.pruning is Pruning.ROWS and (count := kept_rows(k, policy[k.name].keep_ratio)) < k.channels
    )
    kernels = tuple(
        StoredKernel(k.name, slim_kernel_shape(spec, policy, k), k.channel_dim, policy[k.name]) for k in spec.kernels
    )
    rest = tuple(StoredTensor(t.name, slim_shape(spec, policy, t.name, t.shape), t.dtype) for t in spec.rest)
    return Layout(kernels, rest, couplings, rows)


def kept_units(spec: NetworkSpec, policy: Mapping[str, Choice], coupling: int) -> int:
    """How many units of a coupling stay: the largest keep_ratio among its producers decides (the safer one)."""
    group = spec.couplings[coupling]
    ratio = max(policy[name].keep_ratio for name in group.producers if name in spec.by_name)
    return max(1, round(ratio * group.units))


def kept_rows(kernel: Kernel, keep_ratio: float) -> int:
    """How many rows of a row-pruned kernel stay, the same number in each convolution group."""
    per_group = kernel.channels // kernel.groups
    return kernel.groups * max(1, round(keep_ratio * per_group))


def slim_shape(spec: NetworkSpec, policy: Mapping[str, Choice], name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a tensor after the couplings through it have lost their units."""
    left = list(shape)
    for index, member in spec.members_of.get(name, []):
        lost = spec.couplings[index].units - kept_units(spec, policy, index)
        left[member.dim] -= lost * member.width * len(member.starts)
    return tuple(left)


def slim_kernel_shape(spec: NetworkSpec, policy: Mapping[str, Choice], kernel: Kernel) -> tuple[int, ...]:
    """The shape of a kernel after coupled units and scattered rows are gone."""
    left = list(slim_shape(spec, policy, kernel.name, kernel.shape))
    if kernel.pruning is Pruning.ROWS:
        left[kernel.channel_dim] = kept_rows(kernel, policy[kernel.name].keep_ratio)
    return tuple(left)

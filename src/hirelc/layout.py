"""What a .hirelc file holds, from the network's structure and a policy alone: names, shapes, numbers of codes.

`cost` adds up a layout, `artifact` writes one. The format is specified in docs/format.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from hirelc.formats import per_channel
from hirelc.network.spec import Coupling, Kernel, NetworkSpec, Pruning
from hirelc.policy import Choice


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
    def scales(self) -> int:
        return self.shape[self.channel_dim] if per_channel(self.choice) else 1


@dataclass(frozen=True)
class StoredTensor:
    """One tensor that is no kernel. `shape` is what is left after pruning.

    :param kind: "coded", or the type it is stored in raw: "float16", "float32" or "int64"
    """

    name: str
    shape: tuple[int, ...]
    kind: str

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


def layout_of(spec: NetworkSpec, policy: Mapping[str, Choice]) -> Layout:
    """The layout of the file that this (canonical) policy leads to."""
    units = {i: kept_units(spec, policy, i) for i in range(len(spec.couplings))}
    couplings = tuple(StoredCoupling(c, units[i]) for i, c in enumerate(spec.couplings) if units[i] < c.units)
    rows = tuple(
        StoredRows(k.name, k.channels, count)
        for k in spec.kernels
        if k.pruning is Pruning.ROWS and (count := kept_rows(k, policy[k.name].keep_ratio, spec.align)) < k.channels
    )
    kernels = tuple(
        StoredKernel(k.name, slim_kernel_shape(spec, policy, k), k.channel_dim, policy[k.name]) for k in spec.kernels
    )
    rest = tuple(StoredTensor(t.name, slim_shape(spec, policy, t.name, t.shape), t.kind) for t in spec.rest)
    return Layout(kernels, rest, couplings, rows)


def kept_units(spec: NetworkSpec, policy: Mapping[str, Choice], coupling: int) -> int:
    """How many units of a coupling stay: the largest keep_ratio among its producers decides (the safer one)."""
    group = spec.couplings[coupling]
    ratio = max(policy[name].keep_ratio for name in group.producers if name in spec.by_name)
    width = max(m.width for m in group.members if m.produces and m.tensor in spec.by_name)
    return _aligned(round(ratio * group.units), group.units, width, spec.align)


def kept_rows(kernel: Kernel, keep_ratio: float, multiple: int) -> int:
    """How many rows of a row-pruned kernel stay, the same number in each convolution group."""
    each = kernel.channels // kernel.groups
    return kernel.groups * _aligned(round(keep_ratio * each), each, kernel.groups, multiple)


@lru_cache(maxsize=65536)
def _aligned(count: int, full: int, width: int, multiple: int) -> int:
    """The count of units of `width` channels nearest to one whose channels are a multiple; at least one, or all."""
    step = multiple // math.gcd(multiple, width)
    below = count // step * step
    return min((n for n in (below, below + step, full) if 0 < n <= full), key=lambda n: (abs(n - count), -n))


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
        left[kernel.channel_dim] = kept_rows(kernel, policy[kernel.name].keep_ratio, spec.align)
    return tuple(left)

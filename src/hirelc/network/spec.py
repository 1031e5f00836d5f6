"""Values that describe a network. No torch here: names, shapes and index arithmetic only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np


class Pruning(StrEnum):
    """How a kernel's output channels can go.

    COUPLED  removed together with everything that reads them inside the block
    ROWS     not stored and not computed; the result is scattered back to its full width
    NONE     never (the reason is given)
    """

    COUPLED = "coupled"
    ROWS = "rows"
    NONE = "none"


@dataclass(frozen=True)
class Kernel:
    """One weight tensor that can be compressed.

    :param name: parameter path, e.g. "layer1.0.conv1.weight"
    :param channel_dim: the dimension of `shape` that holds output channels
    :param groups: convolution groups
    :param macs: multiply-accumulates for one sample
    :param block: index of the owning block; None for the frame
    """

    name: str
    module: str
    kind: str
    shape: tuple[int, ...]
    channel_dim: int
    groups: int
    macs: int
    block: int | None
    pruning: Pruning
    reason: str = ""

    @property
    def weights(self) -> int:
        return math.prod(self.shape)

    @property
    def channels(self) -> int:
        return self.shape[self.channel_dim]


@dataclass(frozen=True)
class Member:
    """One dimension of one tensor that a coupled group runs through.

    Unit u of the group is the indices start + u*width .. start + (u+1)*width - 1 for every start.
    """

    tensor: str
    dim: int
    starts: tuple[int, ...]
    width: int
    produces: bool = False  # an output side: it decides the importance and the keep_ratio

    def indices(self, units: Sequence[int]) -> np.ndarray:
        """Ascending indices of the given units in this dimension, int64."""
        base = np.asarray(units, dtype=np.int64)[:, None] * self.width + np.arange(self.width)
        return np.concatenate([start + base.ravel() for start in self.starts])


@dataclass(frozen=True)
class AttributeChange:
    """An integer attribute that counts units (such as a number of heads): its value is kept units x per_unit."""

    module: str
    attribute: str
    per_unit: int


@dataclass(frozen=True)
class Coupling:
    """Dimensions that must shrink together. Whole units are kept or removed (a channel, or a head)."""

    units: int
    members: tuple[Member, ...]
    attributes: tuple[AttributeChange, ...] = ()

    @cached_property
    def producers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(m.tensor for m in self.members if m.produces))


@dataclass(frozen=True)
class Block:
    """A repeated unit of the network that owns kernels."""

    name: str
    kernels: tuple[str, ...]


@dataclass(frozen=True)
class Untouched:
    """A tensor that is stored as it is, and why."""

    name: str
    shape: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class TensorEntry:
    """A tensor of the state that is no kernel: a norm, a bias, a table, a buffer. `kind` is how it is stored."""

    name: str
    shape: tuple[int, ...]
    kind: str  # "coded", or raw: "float16", "float32", "int64"


@dataclass(frozen=True)
class NetworkSpec:
    """All that the rest of hirelc knows of a network's structure.

    :param align: channels are kept in multiples of it (odd counts run slower), or all of them
    """

    kernels: tuple[Kernel, ...]
    blocks: tuple[Block, ...]
    couplings: tuple[Coupling, ...]
    rest: tuple[TensorEntry, ...]
    untouched: tuple[Untouched, ...]
    original_bytes: int
    parameters: int = 0
    notes: tuple[str, ...] = ()
    align: int = 1

    @cached_property
    def by_name(self) -> dict[str, Kernel]:
        return {kernel.name: kernel for kernel in self.kernels}

    @cached_property
    def coupling_of(self) -> dict[str, int]:
        """Kernel name -> index of the coupling through its output channels."""
        return {name: i for i, c in enumerate(self.couplings) for name in c.producers if name in self.by_name}

    @cached_property
    def members_of(self) -> dict[str, list[tuple[int, Member]]]:
        """Tensor name -> (coupling index, member) for each dimension that a coupling runs through."""
        table: dict[str, list[tuple[int, Member]]] = {}
        for i, coupling in enumerate(self.couplings):
            for member in coupling.members:
                table.setdefault(member.tensor, []).append((i, member))
        return table

    @property
    def frame(self) -> tuple[Kernel, ...]:
        return tuple(kernel for kernel in self.kernels if kernel.block is None)

"""What the zoo says of each of its networks, and the inputs that they take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

IMAGES = (2, 3, 16, 16)


@dataclass(frozen=True)
class Entry:
    """One network of the zoo.

    :param blocks: how many blocks must be found
    :param coupled: kernels (by name) whose output channels must be removable on both sides
    :param untouched: tensors of two or more dimensions that are stored as they are, with a reason
    :param slow: too long for the default tests
    """

    name: str
    factory: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    blocks: int
    coupled: tuple[str, ...] = ()
    untouched: tuple[str, ...] = ()
    slow: bool = False


def images(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(shape or IMAGES, generator=torch.Generator().manual_seed(0))


def tokens(vocabulary: int = 50, length: int = 9) -> Callable[[], Tensor]:
    return lambda: torch.randint(0, vocabulary, (2, length), generator=torch.Generator().manual_seed(0))


def each(pattern: str, names: str, count: int = 2) -> tuple[str, ...]:
    """The kernels `names` (split by spaces) of the blocks that `pattern` numbers."""
    return tuple(f"{pattern.format(i)}.{name}.weight" for i in range(count) for name in names.split())

"""Which kernels of a block lose their channels together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hirelc.policy import Choice
from hirelc.search.problem import BlockInfo


def keep_groups(block: BlockInfo) -> tuple[tuple[int, ...], ...]:
    """Indices of the kernels that share a keep_ratio, a tuple for each ratio that can be chosen on its own."""
    groups: dict[tuple[str, int], list[int]] = {}
    for index, kernel in enumerate(block.kernels):
        if kernel.prunable:
            name = ("alone", index) if kernel.coupling is None else ("coupling", kernel.coupling)
            groups.setdefault(name, []).append(index)
    return tuple(map(tuple, groups.values()))


def with_keep(choices: Sequence[Choice], group: Sequence[int], keep_ratio: float) -> tuple[Choice, ...]:
    """The choices with another keep_ratio for the kernels of a group; not canonical yet."""
    return tuple(replace(c, keep_ratio=keep_ratio) if i in group else c for i, c in enumerate(choices))

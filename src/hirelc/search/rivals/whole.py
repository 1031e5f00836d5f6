"""A network seen as a single block: what an agent without hierarchy decides about."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from hirelc.policy import Choice
from hirelc.search.problem import BlockInfo
from hirelc.search.views import Kernels, ProblemView


class Whole(ProblemView):
    """A `Problem` of one block that holds all kernels of all blocks."""

    @cached_property
    def blocks(self) -> tuple[BlockInfo, ...]:
        blocks = self._problem.blocks
        kernels = tuple(kernel for block in blocks for kernel in block.kernels)
        sensitivity = sum(block.share * block.sensitivity for block in blocks) / sum(block.share for block in blocks)
        return (BlockInfo("the whole network", kernels, 0.0, 1.0, sensitivity),)

    def translated(self, choices: Sequence[Sequence[Choice]]) -> tuple[Kernels, ...]:
        return self.split(choices[0])

    def split(self, choices: Sequence[Choice]) -> tuple[Kernels, ...]:
        """Choices of all kernels, by the network's own blocks."""
        given = iter(choices)
        return tuple(tuple(next(given) for _ in block.kernels) for block in self._problem.blocks)

    def block_bytes(self, block: int, choices: Sequence[Choice]) -> int:
        return sum(self._problem.block_bytes(index, part) for index, part in enumerate(self.split(choices)))

    def block_distortion(self, block: int, choices: Sequence[Choice]) -> float:
        return sum(self._problem.block_distortion(index, part) for index, part in enumerate(self.split(choices)))

    def canonical(self, block: int, choices: Sequence[Choice]) -> Kernels:
        parts = (self._problem.canonical(index, part) for index, part in enumerate(self.split(choices)))
        return tuple(choice for part in parts for choice in part)

    def block_macs(self, block: int, choices: Sequence[Choice]) -> int:
        return sum(self._problem.block_macs(index, part) for index, part in enumerate(self.split(choices)))

    def block_latency(self, block: int, choices: Sequence[Choice]) -> float:
        return sum(self._problem.block_latency(index, part) for index, part in enumerate(self.split(choices)))

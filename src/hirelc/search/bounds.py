"""The limits within which a kernel's choice may move, and what they make of a block's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hirelc.config import SearchConfig
from hirelc.policy import Budget, Choice, Granularity, NumberType
from hirelc.search.problem import BlockInfo, Problem

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Bounds:
    """Limits on bits and keep_ratio, each cut into `levels` steps. A higher level is the safer one.

    :param min_keep: lowest keep_ratio; kernels that are not prunable stay at 1 whatever it says
    """

    min_bits: int
    max_bits: int
    min_keep: float
    levels: int

    @classmethod
    def of(cls, config: SearchConfig) -> Bounds:
        """The widest limits: those of the whole search."""
        return cls(config.min_bits, config.max_bits, config.min_keep, config.levels)

    def within(self, budget: Budget) -> Bounds:
        """These limits, tightened to what a budget allows."""
        return replace(
            self,
            min_bits=min(max(self.min_bits, budget.min_bits), self.max_bits),
            min_keep=max(self.min_keep, 1 - budget.max_pruning),
        )

    @cached_property
    def bits(self) -> tuple[int, ...]:
        """Bits at each level, ascending; neighbours may be equal where there are more levels than bit-widths."""
        return tuple(int(bits) for bits in np.rint(np.linspace(self.min_bits, self.max_bits, self.levels)))

    @cached_property
    def keeps(self) -> tuple[float, ...]:
        """keep_ratio at each level, ascending to 1."""
        return tuple(float(keep) for keep in np.linspace(self.min_keep, 1.0, self.levels))


def alike(
    block: BlockInfo,
    bits: int,
    keep_ratio: float = 1.0,
    number_type: NumberType = NumberType.INT,
    granularity: Granularity = Granularity.LEARNED,
) -> tuple[Choice, ...]:
    """The same choice for every kernel of a block; kernels that cannot be pruned keep all channels."""
    return tuple(Choice(bits, keep_ratio if kernel.prunable else 1.0, number_type, granularity) for kernel in block.kernels)


def size_fraction(problem: Problem, block: int, choices: Sequence[Choice]) -> float:
    """Bytes of the compressed block / bytes of the block in fp32."""
    return problem.block_bytes(block, choices) / (FLOAT32_BYTES * problem.blocks[block].weights)


def uniform_fraction(problem: Problem, block: int, bits: int, keep_ratio: float = 1.0) -> float:
    """Size fraction of a block whose kernels are all alike."""
    return size_fraction(problem, block, problem.canonical(block, alike(problem.blocks[block], bits, keep_ratio)))


def blocks_bytes(problem: Problem) -> int:
    """Bytes of all blocks' kernels in fp32."""
    return FLOAT32_BYTES * sum(block.weights for block in problem.blocks)


def random_choices(block: BlockInfo, bounds: Bounds, generator: np.random.Generator) -> tuple[Choice, ...]:
    """Independent uniform choices within bounds."""
    types, layouts = tuple(NumberType), tuple(Granularity)
    return tuple(
        Choice(
            bounds.bits[generator.integers(bounds.levels)],
            bounds.keeps[generator.integers(bounds.levels)] if kernel.prunable else 1.0,
            types[generator.integers(len(types))],
            layouts[generator.integers(len(layouts))],
        )
        for kernel in block.kernels
    )

"""The limits within which a kernel's choice may move, and what they make of a block's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hirelc.config import SearchConfig
from hirelc.policy import Budget, Choice, Granularity, NumberType
from hirelc.precision import highest_rung, lowest_rung, with_precision
from hirelc.search.problem import BlockInfo, Problem

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Bounds:
    """Limits on precision and keep_ratio, each cut into `levels` steps. A higher level is the safer one.

    :param lowest: rung of the ladder of `precision`; :param highest: likewise
    :param min_keep: lowest keep_ratio; kernels that are not prunable stay at 1 whatever it says
    """

    lowest: int
    highest: int
    min_keep: float
    levels: int

    @classmethod
    def of(cls, config: SearchConfig) -> Bounds:
        """The widest limits: those of the whole search."""
        return cls(lowest_rung(config.min_bits), highest_rung(config.max_bits), config.min_keep, config.levels)

    def within(self, budget: Budget) -> Bounds:
        """These limits, tightened to what a budget allows."""
        return replace(
            self,
            lowest=min(max(self.lowest, budget.min_precision), self.highest),
            min_keep=max(self.min_keep, 1 - budget.max_pruning),
        )

    @cached_property
    def precisions(self) -> tuple[int, ...]:
        """Rung at each level, ascending; neighbours may be equal where there are more levels than rungs."""
        return tuple(int(rung) for rung in np.rint(np.linspace(self.lowest, self.highest, self.levels)))

    @cached_property
    def keeps(self) -> tuple[float, ...]:
        """keep_ratio at each level, ascending to 1."""
        return tuple(float(keep) for keep in np.linspace(self.min_keep, 1.0, self.levels))


def alike(
    block: BlockInfo,
    precision: int,
    keep_ratio: float = 1.0,
    number_type: NumberType = NumberType.INT,
    granularity: Granularity = Granularity.LEARNED,
) -> tuple[Choice, ...]:
    """The same choice for every kernel of a block; kernels that cannot be pruned keep all channels."""
    plain = with_precision(Choice(number_type=number_type, granularity=granularity), precision)
    return tuple(replace(plain, keep_ratio=keep_ratio if kernel.prunable else 1.0) for kernel in block.kernels)


def size_fraction(problem: Problem, block: int, choices: Sequence[Choice]) -> float:
    """Bytes of the compressed block / bytes of the block in fp32."""
    return problem.block_bytes(block, choices) / (FLOAT32_BYTES * problem.blocks[block].weights)


def uniform_fraction(problem: Problem, block: int, precision: int, keep_ratio: float = 1.0) -> float:
    """Size fraction of a block whose kernels are all alike."""
    return size_fraction(problem, block, problem.canonical(block, alike(problem.blocks[block], precision, keep_ratio)))


def blocks_bytes(problem: Problem) -> int:
    """Bytes of all blocks' kernels in fp32."""
    return FLOAT32_BYTES * sum(block.weights for block in problem.blocks)


def random_choices(block: BlockInfo, bounds: Bounds, generator: np.random.Generator) -> tuple[Choice, ...]:
    """Independent uniform choices within bounds."""
    types, layouts = tuple(NumberType), tuple(Granularity)
    return tuple(
        with_precision(
            Choice(
                keep_ratio=bounds.keeps[generator.integers(bounds.levels)] if kernel.prunable else 1.0,
                number_type=types[generator.integers(len(types))],
                granularity=layouts[generator.integers(len(layouts))],
            ),
            bounds.precisions[generator.integers(bounds.levels)],
        )
        for kernel in block.kernels
    )

"""An analytic network: a `Problem` whose distortion, bytes and drop are formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from hirelc.policy import Choice, Granularity, Limits, Measurement, NumberType, Policy
from hirelc.search.problem import BlockInfo, KernelInfo

CHANNELS = 32
FIXED_MACS, FIXED_MS = 20_000, 0.05
FLOAT_ERROR = 0.7  # so that the INT reference can be beaten
GRANULARITY_ERROR = {
    Granularity.LEARNED: 1.0, Granularity.PER_CHANNEL: 1.2, Granularity.UNIFORM: 1.8, Granularity.LOG: 2.5,
}  # fmt: skip


def coded_bits(choice: Choice) -> float:
    """A quarter of an octave of the step takes a seventh of a bit."""
    return choice.bits - 0.15 * choice.coarse


class FakeProblem:
    """Blocks of two or three kernels in a chain: a pruned kernel also slims the next. The very first cannot be pruned."""

    def __init__(self, blocks: int = 4, dead: bool = False, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._gain = 0.0 if dead else 1.0
        weights = [[(index + 2) * 1024 * (1 + kernel) for kernel in range(2 + index % 2)] for index in range(blocks)]
        total = sum(map(sum, weights))
        self.blocks = tuple(
            BlockInfo(
                f"blocks.{index}",
                tuple(
                    KernelInfo(f"blocks.{index}.{kernel}.weight", count, self._sensitivity(index, kernel), index + kernel > 0)
                    for kernel, count in enumerate(counts)
                ),
                index / max(blocks - 1, 1),
                sum(counts) / total,
                self._sensitivity(index, 0),
            )
            for index, counts in enumerate(weights)
        )
        self.original_bytes = 4 * total + 8000
        self.fixed_bytes = 700
        self.block_bytes = lru_cache(maxsize=None)(self._block_bytes)
        self.block_distortion = lru_cache(maxsize=None)(self._block_distortion)
        self.block_macs = lru_cache(maxsize=None)(self._block_macs)
        self.block_latency = lru_cache(maxsize=None)(self._block_latency)
        self.canonical = lru_cache(maxsize=None)(self._canonical)

    @staticmethod
    def _sensitivity(block: int, kernel: int) -> float:
        return (0.95, 0.15, 0.5, 0.8, 0.25)[(block + 2 * kernel) % 5]

    def _canonical(self, block: int, choices: Sequence[Choice]) -> tuple[Choice, ...]:
        return tuple(
            replace(choice, keep_ratio=max(round(choice.keep_ratio * CHANNELS), 1) / CHANNELS if kernel.prunable else 1.0)
            for kernel, choice in zip(self.blocks[block].kernels, choices, strict=True)
        )

    def _block_bytes(self, block: int, choices: Sequence[Choice]) -> int:
        size, kept_inputs = 0, CHANNELS
        for kernel, choice in zip(self.blocks[block].kernels, choices, strict=True):
            kept = round(choice.keep_ratio * CHANNELS)
            scales = kept if choice.granularity in (Granularity.LEARNED, Granularity.PER_CHANNEL) else 1
            size += math.ceil(kernel.weights * kept * kept_inputs / CHANNELS**2 * coded_bits(choice) / 8) + 2 * scales
            kept_inputs = kept
        return size

    def _block_macs(self, block: int, choices: Sequence[Choice]) -> int:
        """A weight of an earlier block is used more often, as those of early convolutions are."""
        total, kept_inputs = 0, CHANNELS
        for kernel, choice in zip(self.blocks[block].kernels, choices, strict=True):
            kept = round(choice.keep_ratio * CHANNELS)
            total += kernel.weights * kept * kept_inputs // CHANNELS**2 * 4 // (1 + block)
            kept_inputs = kept
        return total

    def macs(self, choices: Sequence[Sequence[Choice]]) -> int:
        return FIXED_MACS + sum(self.block_macs(b, tuple(decided)) for b, decided in enumerate(choices))

    def _block_latency(self, block: int, choices: Sequence[Choice]) -> float:
        """Each kernel has a start-up time; bits make nothing faster."""
        return 0.01 * len(choices) + 2e-6 * self.block_macs(block, choices)

    def latency_ms(self, choices: Sequence[Sequence[Choice]]) -> float | None:
        return FIXED_MS + sum(self.block_latency(b, tuple(decided)) for b, decided in enumerate(choices))

    def _block_distortion(self, block: int, choices: Sequence[Choice]) -> float:
        total = 0.0
        for kernel, choice in zip(self.blocks[block].kernels, choices, strict=True):
            floats = choice.number_type is NumberType.FLOAT
            rounding = 4.0 ** -coded_bits(choice) * GRANULARITY_ERROR[choice.granularity] * (FLOAT_ERROR if floats else 1.0)
            pruning = 0.5 * (1 - choice.keep_ratio) ** 2
            total += (0.05 + kernel.sensitivity) * (rounding + pruning)
        return self._gain * total

    def policy(self, choices: Sequence[Sequence[Choice]]) -> Policy:
        return Policy(
            (
                ("stem.weight", Choice()),
                *(
                    (kernel.name, choice)
                    for block, decided in zip(self.blocks, choices, strict=True)
                    for kernel, choice in zip(block.kernels, decided, strict=True)
                ),
            )
        )

    def file_bytes(self, choices: Sequence[Sequence[Choice]]) -> int:
        size = self.fixed_bytes + sum(self.block_bytes(b, tuple(decided)) for b, decided in enumerate(choices))
        return 8 * math.ceil(size / 8)

    def measure(self, choices: Sequence[Sequence[Choice]]) -> Measurement:
        """The truth: another law than the cold start's prior, with an effect of formats that it does not know."""
        distortion = sum(self.block_distortion(b, tuple(decided)) for b, decided in enumerate(choices))
        logs = sum(choice.granularity is Granularity.LOG for decided in choices for choice in decided)
        drop = 2.5 * distortion**0.6 + 0.05 * logs
        size, macs, latency = self.file_bytes(choices), self.macs(choices), self.latency_ms(choices)
        return Measurement(size, 90 - drop, drop, macs, "search-validation", latency_ms=latency)

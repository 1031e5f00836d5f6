"""The rate term: how many bits the coder will need for the kernels, as a part of the fine-tuning loss.

The estimate is the zero-order one, -log2 of each level's share in its kernel, interpolated between neighbouring
levels so that it has a gradient: a weight is pulled towards the cheaper of the two levels that it lies between, by
what the difference costs. Its strength is not a setting: it follows from the bits that the goal leaves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from hirelc.compression.apply import CompressedNetwork
from hirelc.compression.fakequant import Quantizer
from hirelc.compression.quantize import as_rows

WARM_UP = 0.05  # share of the steps without a rate term
REACHED = 0.5  # share of the steps after which the size is to be the wanted one
START = 0.1  # strength where none is known: loss per bit and weight
WEAKEST, STRONGEST = 1e-4, 20.0
LOOKS, FILES = 100, 20  # how often the codes are looked at at least, and the file, over a fine-tune
APART = 5  # steps between looks at most: weights take some thirty to follow, and a controller that sleeps swings
FEW = 250  # steps: with fewer the controller has to be faster
INTEGRAL, PROPORTIONAL = 0.25, 20.0  # of the controller, on the relative excess of bits; the former for each step

MARGIN = 0.998  # of the wanted length: codes move a little after the last look at them
# In training, of what the codes may take: the controller swings, and rounding 1 % away afterwards costs 0.4 points at
# half a bit per weight.
AIM = 0.993
LEAST = 0.05  # of the present bits: a goal below that would leave zeros only
# Bits for each weight, with fewer of which a short fine-tune is in haste, and how much at most; three times is too much.
ENOUGH, MOST_HASTE = 1.5, 2.0


def shares_of(quantizer: Quantizer, weight: Tensor) -> Tensor:
    """Share of each level among the codes of a kernel, smoothed so that none is zero; shape (levels,)."""
    levels = len(quantizer.grid.levels)
    counts = torch.bincount(quantizer.codes(weight).codes.reshape(-1).long(), minlength=levels).float()
    reach = levels // 16  # few weights on many levels: neighbours speak for each other
    if reach:
        window = counts.new_ones(1, 1, 2 * reach + 1) / (2 * reach + 1)
        counts = torch.nn.functional.conv1d(counts.view(1, 1, -1), window, padding=reach).view(-1)
    counts = counts + 0.5
    return counts / counts.sum()


def zero_order_bits(quantizer: Quantizer, weight: Tensor) -> float:
    """Zero-order entropy of a kernel's codes, in bits for the whole kernel."""
    codes = quantizer.codes(weight).codes.reshape(-1).long()
    return entropy_bits(codes)


def entropy_bits(codes: Tensor) -> float:
    """Zero-order entropy of non-negative integers, in bits for all of them together."""
    counts = torch.bincount(codes).double()
    counts = counts[counts > 0]
    return float((counts * (counts.sum() / counts).log2()).sum())


def expected_bits(quantizer: Quantizer, weight: Tensor, costs: Tensor) -> Tensor:
    """Bits of a kernel under given costs per level, differentiable in the weight and in a learned scale.

    :param costs: bits of each level, shape (levels,)
    """
    levels = quantizer.grid.levels
    zero = quantizer.zero_point or 0
    units = as_rows(weight.float(), quantizer.channel_dim) / quantizer.stored_scale() + zero
    units = units.clamp(levels[0], levels[-1])
    right = torch.bucketize(units.detach(), levels).clamp_(1, len(levels) - 1)
    low, high = levels[right - 1], levels[right]
    return (costs[right - 1] + (costs[right] - costs[right - 1]) * (units - low) / (high - low)).sum()


@dataclass(frozen=True)
class FileGoal:
    """A length that the file of a compressed network is to have.

    :param written: how long the file of the network as it is now would be
    :param strength: of the rate term at first; what another fine-tune to this length ended with saves looking for it
    """

    size_bytes: int
    written: Callable[[CompressedNetwork], int]
    strength: float = START

    def met(self, compressed: CompressedNetwork) -> bool:
        return self.written(compressed) <= self.size_bytes

    def haste(self, compressed: CompressedNetwork) -> float:
        """A factor on the learning rate of short fine-tunes: with few bits most weights must become zeros, and travel there."""
        weights = sum(weight.numel() for _, weight in kernels_of(compressed))
        return min(MOST_HASTE, max(1.0, ENOUGH * weights / self.kernel_bits(compressed)))

    def kernel_bits(self, compressed: CompressedNetwork, written: int | None = None) -> float:
        """Zero-order bits that the codes of all kernels may take, everything else and the coder's gains being as now.

        :param written: the present length, where it is known
        """
        bits = kernel_bits(compressed)
        others = (self.written(compressed) if written is None else written) - bits / 8
        return max(8 * (MARGIN * self.size_bytes - others), LEAST * bits, 1.0)


class RateTerm:
    """Leads a network in training to a length of its file.

    :param steps: optimizer steps of the fine-tune
    """

    def __init__(self, compressed: CompressedNetwork, goal: FileGoal, steps: int) -> None:
        self.compressed = compressed
        self.goal = goal
        self.steps = steps
        self.integral, self.gain = goal.strength, INTEGRAL * max(1.0, FEW / steps)
        self.looked = 0  # the step of the last look
        self.strength = 0.0
        self.weights = max(1, sum(w.numel() for _, w in kernels_of(compressed)))
        self.bits = self.start_bits = max(1.0, kernel_bits(compressed))
        self.target_bits = AIM * goal.kernel_bits(compressed)
        self.costs: list[Tensor] = []

    def reached(self) -> bool:
        """Whether the file would fit now. The target is set anew: as codes get rarer, the coder's gains change."""
        written = self.goal.written(self.compressed)
        self.target_bits = AIM * self.goal.kernel_bits(self.compressed, written)
        return written <= self.goal.size_bytes

    def loss(self, step: int) -> Tensor | None:
        """What to add to the loss of this step; None while nothing is wanted."""
        if step < WARM_UP * self.steps:
            return None
        if step % max(1, min(APART, self.steps // LOOKS)) == 0 or not self.costs:
            self._look(step)
        if step % max(1, self.steps // FILES) == 0:
            self.reached()
        kernels = zip(kernels_of(self.compressed), self.costs, strict=True)
        bits = torch.stack([expected_bits(q, w, costs) for (q, w), costs in kernels]).sum()
        return self.strength / self.weights * bits

    @torch.no_grad()
    def _look(self, step: int) -> None:
        self.bits = kernel_bits(self.compressed)
        self.costs = [-shares_of(q, w).log2() for q, w in kernels_of(self.compressed)]
        progress = min(1.0, (step / self.steps - WARM_UP) / (REACHED - WARM_UP))
        # equal factors, not equal differences: each halving is as hard as the one before
        wanted = max(self.target_bits, self.start_bits * (self.target_bits / self.start_bits) ** progress)
        excess = max(-0.5, min(0.5, self.bits / wanted - 1))
        passed, self.looked = step - self.looked, step
        self.integral = min(STRONGEST, max(WEAKEST, self.integral * math.exp(self.gain * passed * excess)))
        self.strength = self.integral * math.exp(PROPORTIONAL * excess)


def kernels_of(compressed: CompressedNetwork) -> Iterable[tuple[Quantizer, Tensor]]:
    """The quantizer and the float weight of each kernel, in order."""
    named = dict(compressed.network.named_parameters())
    for name, quantizer in compressed.quantizer_of().items():
        yield quantizer, named[name]


@torch.no_grad()
def kernel_bits(compressed: CompressedNetwork) -> float:
    """Zero-order bits of the codes of all kernels as they are now."""
    return sum(zero_order_bits(q, w) for q, w in kernels_of(compressed))

"""Fitting codes to a size without training: coarser steps, and rounding that weighs what a level costs.

Both trade error, weighted by the Fisher information, against bits at one price for all kernels; the price is the
least with which the codes fit. This is where bits move between kernels to where they are worth most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hirelc.compression.apply import CompressedNetwork
from hirelc.compression.fakequant import Quantizer
from hirelc.compression.grid import PER_OCTAVE, exponents_of, numbers
from hirelc.compression.quantize import as_rows, from_rows
from hirelc.compression.rate import entropy_bits, kernel_bits, kernels_of, shares_of, zero_order_bits
from hirelc.precision import PER_OCTAVE as RUNGS_PER_OCTAVE
from hirelc.precision import can_be_coarse

COARSEST = 14 * PER_OCTAVE  # grid steps; minifloats have to leave all their exponents behind
# No kernel shrinks to less than this part of what the average keeps of its bits, while that is possible: the Fisher
# information speaks of small changes, and undervalues kernels that all but vanish (docs/decisions/0012).
FAIR = 0.7
# And none starts with less than this part of the bits per weight that all may have on average: it would be dead before
# training begins. Its policy's coarser step is taken back as far as that needs.
VANISHING = 0.5
# Rounding takes at most so many times the average's share from one kernel, for the same reason.
SPREAD = 2.0
NEXT_TO_NOTHING = 0.02  # of the bits at the start: coarser than that is not looked at
LOWEST_PRICE, HIGHEST_PRICE = -60.0, 20.0  # log2 of loss per bit


@torch.no_grad()
def scale_to_bits(compressed: CompressedNetwork, importance: Mapping[str, Tensor], target_bits: float) -> None:
    """Coarser steps, in place, until the codes of all kernels take so many bits, or as near as steps can bring them.

    Formats whose levels do not start at their scale (a zero point, powers of two) keep theirs.

    :param importance: per kernel, weights of the squared errors (the diagonal Fisher), of the kernel's present shape
    """
    least = VANISHING * target_bits / max(1, sum(w.numel() for _, w in kernels_of(compressed)))
    for quantizer, weight in kernels_of(compressed):
        if not quantizer.trained:  # kernels that training made sparse are alive
            _revive(quantizer, weight, least * weight.numel())
    if kernel_bits(compressed) <= target_bits:
        return
    kernels = [_Steps(q, w, importance[name]) for name, (q, w) in _named(compressed)]
    floor = FAIR * target_bits / sum(k.bits[0] for k in kernels)
    while floor > NEXT_TO_NOTHING and sum(k.least_bits(floor) for k in kernels) > target_bits:
        floor /= 2
    price = _price(lambda price: sum(k.bits[k.chosen(price, floor)] for k in kernels), target_bits)
    for kernel in kernels:
        kernel.write(kernel.chosen(price, floor))


@torch.no_grad()
def round_to_bits(compressed: CompressedNetwork, importance: Mapping[str, Tensor], target_bits: float) -> None:
    """Moves weights, in place, onto the level of least error + price x bits. Nothing moves when the codes fit already.

    :param importance: as for `scale_to_bits`
    """
    if kernel_bits(compressed) <= target_bits:
        return
    kernels = [_Rounding(q, w, importance[name]) for name, (q, w) in _named(compressed)]
    now = sum(kernel.bits(0.0) for kernel in kernels)
    left = 1 - SPREAD * max(0.0, 1 - target_bits / now)
    while left > NEXT_TO_NOTHING and sum(kernel.floored(left) for kernel in kernels) > target_bits:
        left /= 2
    for kernel in kernels:
        kernel.keep(left)
    price = _price(lambda price: sum(k.bits(price) for k in kernels), target_bits)
    for kernel in kernels:
        kernel.write(price)


def _revive(quantizer: Quantizer, weight: Tensor, least_bits: float) -> None:
    """Takes back a policy's coarser step, a grid step at a time, until the codes take so many bits."""
    start = exponents_of(quantizer.scale)
    for down in range(1, quantizer.choice.coarse * PER_OCTAVE // RUNGS_PER_OCTAVE + 1):
        if zero_order_bits(quantizer, weight) >= least_bits:
            break
        quantizer.scale.copy_(numbers(start - down))


def _named(compressed: CompressedNetwork) -> Sequence[tuple[str, tuple[Quantizer, Tensor]]]:
    return list(zip(compressed.names, kernels_of(compressed), strict=True))


def _price(bits: Callable[[float], float], target_bits: float) -> float:
    """The least price per bit with which the codes fit."""
    low, high = LOWEST_PRICE, HIGHEST_PRICE
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (low, middle) if bits(2.0**middle) <= target_bits else (middle, high)
    return float(2.0**high)


def _floored(importance: Tensor) -> Tensor:
    """A few hundred samples must not declare weights worthless."""
    return importance + importance.mean() + 1e-20


class _Steps:
    """What a kernel's error and bits would be with its scales a number of grid steps up."""

    def __init__(self, quantizer: Quantizer, weight: Tensor, importance: Tensor) -> None:
        self.quantizer = quantizer
        self.start = exponents_of(quantizer.scale)
        movable = can_be_coarse(quantizer.choice)
        self.errors: list[float] = []
        self.bits: list[float] = []
        importance = _floored(importance)
        for up in range(COARSEST + 1 if movable else 1):
            self.write(up)
            self.errors.append(float((importance * (quantizer(weight) - weight).square()).sum()))
            self.bits.append(zero_order_bits(quantizer, weight))
            if self.bits[-1] <= NEXT_TO_NOTHING * self.bits[0]:
                break
        self.write(0)

    def _allowed(self, floor: float) -> Sequence[int]:
        return [up for up, bits in enumerate(self.bits) if up == 0 or bits >= floor * self.bits[0]]

    def least_bits(self, floor: float) -> float:
        return min(self.bits[up] for up in self._allowed(floor))

    def chosen(self, price: float, floor: float) -> int:
        return min(self._allowed(floor), key=lambda up: self.errors[up] + price * self.bits[up])

    def write(self, up: int) -> None:
        self.quantizer.scale.copy_(numbers(self.start + up))


class _Rounding:
    """The two levels that each weight of a kernel lies between, and zero; and what each would cost."""

    def __init__(self, quantizer: Quantizer, weight: Tensor, importance: Tensor) -> None:
        self.weight, self.quantizer = weight, quantizer
        levels = quantizer.grid.levels
        self.scale = quantizer.stored_scale().detach()
        self.zero = quantizer.zero_point or 0
        units = (as_rows(weight.float(), quantizer.channel_dim) / self.scale + self.zero).clamp(levels[0], levels[-1])
        right = torch.bucketize(units, levels).clamp_(1, len(levels) - 1)
        nothing = torch.full_like(right, int((levels - self.zero).abs().argmin()))
        self.choices = torch.stack([right - 1, right, nothing])
        importance = as_rows(_floored(importance), quantizer.channel_dim)
        self.errors = importance * ((levels[self.choices] - units) * self.scale).square()
        self.costs = (-shares_of(quantizer, weight).log2())[self.choices]
        self.highest_price = 2.0**HIGHEST_PRICE

    def floored(self, left: float) -> float:
        """The fewest bits that leave this part of the present ones, or as little more as prices can tell apart."""
        self.keep(left)
        return self.bits(self.highest_price)

    def keep(self, left: float) -> None:
        """No price takes more from this kernel than leaves this part of its bits."""
        least = left * self.bits(0.0)
        low, high = LOWEST_PRICE, HIGHEST_PRICE
        for _ in range(24):
            middle = (low + high) / 2
            low, high = (middle, high) if self.bits(2.0**middle, capped=False) >= least else (low, middle)
        self.highest_price = 2.0**low

    def chosen(self, price: float, capped: bool = True) -> Tensor:
        price = min(price, self.highest_price) if capped else price
        left, right, nothing = self.errors + price * self.costs
        # as argmin over the three, which is many times slower over a first dimension
        between = torch.where(right < left, self.choices[1], self.choices[0])
        return torch.where(nothing < torch.minimum(left, right), self.choices[2], between)

    def bits(self, price: float, capped: bool = True) -> float:
        return entropy_bits(self.chosen(price, capped).reshape(-1))

    def write(self, price: float) -> None:
        values = (self.quantizer.grid.levels[self.chosen(price)] - self.zero) * self.scale
        self.weight.copy_(from_rows(values, tuple(self.weight.shape), self.quantizer.channel_dim))

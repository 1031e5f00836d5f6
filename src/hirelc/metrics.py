"""Scores of a network over a whole split, in points: higher is better, 100 is perfect where there is such a thing.

A split is read batch by batch. What can be added up over batches is (`Summed`): hits, squared errors, a table of
confusions. What cannot, is judged on everything at once (`Gathered`): ranks, F1, areas under curves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from hirelc.errors import DataError

IGNORED = -100  # the target that is no answer: padding, and what is not asked for


class Meter(Protocol):
    """One reading of one split."""

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Counts a batch in."""

    def points(self) -> float:
        """The score of all that was added; NaN when nothing was."""


@runtime_checkable
class Metric(Protocol):
    """How a split is scored."""

    def meter(self) -> Meter:
        """A fresh reading."""


@dataclass(frozen=True)
class Summed:
    """A metric made of sums.

    :param statistics: (outputs, targets) of a batch -> what is added up over batches, of one shape for all batches
    :param value: the sums -> points
    """

    statistics: Callable[[Tensor, Tensor], Tensor]
    value: Callable[[Tensor], float]

    def meter(self) -> Meter:
        return _Sums(self)


@dataclass(frozen=True)
class Gathered:
    """A metric of the whole split at once; outputs and targets are kept in memory, on the CPU.

    :param function: (all outputs, all targets) -> points
    """

    function: Callable[[Tensor, Tensor], float]

    def meter(self) -> Meter:
        return _Everything(self.function)


class _Sums:
    def __init__(self, metric: Summed) -> None:
        self.metric = metric
        self.total: Tensor | None = None

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        part = self.metric.statistics(outputs, targets).detach().double().cpu()
        self.total = part if self.total is None else self.total + part

    def points(self) -> float:
        return math.nan if self.total is None else float(self.metric.value(self.total))


class _Everything:
    def __init__(self, function: Callable[[Tensor, Tensor], float]) -> None:
        self.function = function
        self.parts: list[tuple[Tensor, Tensor]] = []

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        self.parts.append((outputs.detach().cpu(), targets.detach().cpu()))

    def points(self) -> float:
        if not self.parts:
            return math.nan
        outputs, targets = (torch.cat(parts) for parts in zip(*self.parts, strict=True))
        return float(self.function(outputs, targets))


# -- metrics that tasks are made of ----------------------------------------------------------------------------


def mean_score(score: Callable[[Tensor, Tensor], Tensor], scale: float = 100.0) -> Summed:
    """The mean of a score per sample (or per position), times `scale`.

    :param score: (outputs, targets) -> a tensor of scores; every element counts once
    """

    def statistics(outputs: Tensor, targets: Tensor) -> Tensor:
        scores = score(outputs, targets)
        return torch.stack([scores.double().sum(), torch.tensor(float(scores.numel()), device=scores.device)])

    return Summed(statistics, lambda total: scale * float(total[0]) / float(total[1]) if total[1] > 0 else math.nan)


def hits(class_dim: int = -1) -> Callable[[Tensor, Tensor], Tensor]:
    """One for each answer that is right, zero for each wrong one; positions whose target is IGNORED are left out."""

    def score(outputs: Tensor, targets: Tensor) -> Tensor:
        right = outputs.argmax(class_dim) == targets
        return right[targets != IGNORED].float()

    return score


def confusion(outputs: Tensor, targets: Tensor, classes: int, class_dim: int) -> Tensor:
    """How often class i was taken for class j: (classes, classes)."""
    asked = targets != IGNORED
    pairs = targets[asked].long() * classes + outputs.argmax(class_dim)[asked]
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def mean_iou(table: Tensor) -> float:
    """Mean over the classes that occur of intersection / union, in percent."""
    both = table.diagonal()
    either = table.sum(0) + table.sum(1) - both
    found = either > 0
    return 100.0 * float((both[found] / either[found]).mean()) if bool(found.any()) else math.nan


def explained() -> Summed:
    """100 x (1 - squared error / spread of the targets), R2 in percent: 0 is as good as always saying the mean.

    Outputs of one dimension, (samples,) or (samples, values): the mean of R2 over values that vary. More dimensions
    (maps, sequences): errors and spreads are added up over all positions first.
    """
    return Summed(_moments, _r_squared)


def _moments(outputs: Tensor, targets: Tensor) -> Tensor:
    """Per value: squared error, sum, sum of squares; and how many samples."""
    rows = targets.double().reshape(len(targets), -1)
    error = (alike(outputs, targets).double().reshape(rows.shape) - rows).square().sum(0)
    if targets.dim() > 2:
        count = torch.full_like(error[:1], float(rows.numel()))
        return torch.stack([error.sum()[None], rows.sum()[None], rows.square().sum()[None], count])
    return torch.stack([error, rows.sum(0), rows.square().sum(0), torch.full_like(error, float(len(rows)))])


def _r_squared(total: Tensor) -> float:
    error, first, second, count = total
    spread = second - first.square() / count
    varies = spread > 1e-9 * (second.abs() + 1e-30)
    if not bool(varies.any()):
        raise DataError("the targets do not vary over the split: R2 says nothing; give another split or metric")
    return 100.0 * float((1 - error[varies] / spread[varies]).mean())


def alike(outputs: Tensor, targets: Tensor) -> Tensor:
    """The outputs in the shape of the targets: (n, 1) and (n,) are the same numbers.

    :raises DataError: they hold another number of values
    """
    if outputs.shape == targets.shape:
        return outputs
    if outputs.numel() == targets.numel() and len(outputs) == len(targets):
        return outputs.reshape(targets.shape)
    raise DataError(
        f"the network gives {tuple(outputs.shape[1:])} values per sample, the targets have {tuple(targets.shape[1:])}: "
        "make them alike"
    )

"""How alike two answers to the same samples are, as the task sees them: first choices of classes, or values."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from hirelc.errors import DataError
from hirelc.metrics import IGNORED, explained
from hirelc.task import Task


class Agreement(Protocol):
    """Compares what a graph gives with what is wanted, batch by batch.

    :ivar what: is counted, for people
    """

    what: str

    def add(self, found: Tensor, wanted: Tensor, targets: Tensor) -> None:
        """Counts a batch in. Both are as the task sees them; targets may be missing: (samples, 0)."""

    def percent(self) -> float:
        """How much of it agrees."""

    def allowance(self) -> float:
        """Percent that one answer alone makes up: never too much. Zero where answers are not counted."""


class SameChoice:
    """The share of answers (samples, or positions of a map or sequence) whose first choice is the same.

    Positions whose target is IGNORED are left out.
    """

    def __init__(self, class_dim: int) -> None:
        self.class_dim = class_dim
        self.what = "first choices"
        self.same = self.count = 0

    def add(self, found: Tensor, wanted: Tensor, targets: Tensor) -> None:
        same = found.argmax(self.class_dim) == wanted.argmax(self.class_dim)
        if same.dim() > 1:
            self.what = "first choices, position by position"
        if targets.shape == same.shape:
            same = same[targets != IGNORED]
        self.same += int(same.sum())
        self.count += same.numel()

    def percent(self) -> float:
        return 100.0 * self.same / self.count if self.count else 100.0

    def allowance(self) -> float:
        return 100.0 / max(self.count, 1)


class SameValues:
    """The share of the wanted values' variance over the samples that the found ones explain; of their size, where
    nothing varies."""

    what = "values (variance explained)"

    def __init__(self) -> None:
        self.varied = explained().meter()
        self.error = self.size = 0.0

    def add(self, found: Tensor, wanted: Tensor, targets: Tensor) -> None:
        self.varied.add(found, wanted)
        self.error += float((found.double() - wanted.double()).square().sum())
        self.size += float(wanted.double().square().sum())

    def percent(self) -> float:
        try:
            return self.varied.points()
        except DataError:
            return 100.0 * (1.0 - self.error / max(self.size, 1e-30))

    def allowance(self) -> float:
        return 0.0


def agreement_of(task: Task, outputs: Tensor, targets: Tensor) -> Agreement:
    """What a task's outputs are compared by: classes where it chooses, values where it does not.

    :param outputs: of a few samples, as the task sees them
    :param targets: of the same samples; (samples, 0) where there are none
    """
    return SameChoice(task.class_dim) if _chooses(task, outputs, targets) else SameValues()


def _chooses(task: Task, outputs: Tensor, targets: Tensor) -> bool:
    if task.targets in ("classes", "positions", "tokens"):
        return outputs.dim() > 1 and outputs.shape[task.class_dim] > 1
    if task.label is not None:
        return not task.label(outputs, None).is_floating_point()
    if task.targets == "any" and targets.numel():  # a task of one's own: whole numbers, one for each answer, are classes
        answers = outputs.select(task.class_dim, 0)
        return targets.dtype in (torch.int64, torch.int32, torch.uint8) and targets.shape == answers.shape
    return False

"""What the network is for: its loss and its metric, as a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Task:
    """A loss to train by and a score to judge by.

    :param loss: (logits, targets) -> mean loss, a scalar
    :param score: (logits, targets) -> one score in [0, 1] per sample; its mean x 100 is the accuracy in percent
    :param name: how people call the metric
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor], Tensor]
    name: str


def _top1(logits: Tensor, targets: Tensor) -> Tensor:
    return (logits.argmax(-1) == targets).float()


CLASSIFICATION = Task(loss=F.cross_entropy, score=_top1, name="top-1 accuracy")

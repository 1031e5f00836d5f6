"""How good a compressed network is, by more than the metric alone.

A few thousand samples tell accuracies apart by a few tenths of a point. The task's loss on the same samples tells more, and
more than the loss of the fine-tune, which is mostly distillation (docs/decisions/0022 and 0027).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from hirelc.batches import Batches
from hirelc.measure.evaluate import accuracy
from hirelc.network.calling import steady_call, to_device
from hirelc.policy import Verdict
from hirelc.task import Task

KEPT_BYTES = 2**28  # of the original's outputs; where they are more, it is asked again
LIKENESS = 0.2  # part of distillation in the loss that judges: the task's own loss alone may end below the original's


def mixed_loss(task: Task, share: float, temperature: float, outputs: Tensor, wanted: Tensor, targets: Tensor) -> Tensor:
    """Distillation and the task's own loss.

    :param share: of distillation
    :param wanted: the original's outputs
    """
    return share * task.distill(outputs, wanted, targets, temperature) + (1 - share) * task.loss(outputs, targets)


@dataclass(frozen=True)
class Judge:
    """Metric and loss of networks on the search-validation split.

    :param teacher: the original
    :param temperature: of distillation
    """

    teacher: nn.Module
    data: Batches
    task: Task
    temperature: float
    device: str = "cpu"

    def __call__(self, network: nn.Module, precision: str = "fp32") -> Verdict:
        """
        :raises NoScore: the metric is no finite number
        """
        excess, samples = 0.0, 0
        known = iter(self._wanted or ())

        def watch(inputs: Any, outputs: Tensor, targets: Tensor) -> None:
            nonlocal excess, samples
            wanted = next(known).to(outputs.device) if self._wanted else self._ask(inputs)
            excess += len(targets) * float(self._loss(outputs, wanted, targets) - self._loss(wanted, wanted, targets))
            samples += len(targets)

        points = accuracy(network, self.data, self.task, device=self.device, precision=precision, watch=watch)
        return Verdict(points, excess / samples if math.isfinite(excess) else None)

    @cached_property
    def _wanted(self) -> list[Tensor] | None:
        """The original's outputs, batch by batch, on the CPU; None where they are too many to be kept."""
        found, taken = list[Tensor](), 0
        with torch.inference_mode():
            for inputs, _ in self.data.epoch(0, training=False):
                found.append(self._ask(to_device(inputs, self.device)).cpu())
                taken += found[-1].nbytes
                if taken > KEPT_BYTES:
                    return None
        return found

    def _loss(self, outputs: Tensor, wanted: Tensor, targets: Tensor) -> Tensor:
        return mixed_loss(self.task, LIKENESS, self.temperature, outputs, wanted, targets)

    def _ask(self, inputs: Any) -> Tensor:
        return self.task.outputs(steady_call(self.teacher.eval(), inputs))

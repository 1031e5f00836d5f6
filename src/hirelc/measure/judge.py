"""How good a compressed network is, by more than the metric alone.

A few thousand samples tell accuracies apart by a few tenths of a point. The loss of the fine-tune on the same samples,
measured against what the original does with each of them, tells far more (docs/decisions/0022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from hirelc.batches import Batches
from hirelc.config import TrainConfig
from hirelc.measure.evaluate import accuracy
from hirelc.network.calling import steady_call, to_device
from hirelc.policy import Verdict
from hirelc.task import Task

KEPT_BYTES = 2**28  # of the original's outputs; where they are more, it is asked again


def mixed_loss(task: Task, config: TrainConfig, outputs: Tensor, wanted: Tensor, targets: Tensor) -> Tensor:
    """What fine-tunes minimise: distillation and the task's own loss.

    :param wanted: the original's outputs
    """
    share = config.distill_weight
    return share * task.distill(outputs, wanted, targets, config.temperature) + (1 - share) * task.loss(outputs, targets)


@dataclass(frozen=True)
class Judge:
    """Metric and loss of networks on the search-validation split.

    :param teacher: the original
    """

    teacher: nn.Module
    data: Batches
    task: Task
    config: TrainConfig
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
            least = mixed_loss(self.task, self.config, wanted, wanted, targets)
            excess += len(targets) * float(mixed_loss(self.task, self.config, outputs, wanted, targets) - least)
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

    def _ask(self, inputs: Any) -> Tensor:
        return self.task.outputs(steady_call(self.teacher.eval(), inputs))

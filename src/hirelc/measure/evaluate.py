"""Accuracy of a network on a split, and the precision in which networks run."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hirelc.batches import Batches
from hirelc.errors import DataError
from hirelc.network.calling import steady_call, to_device
from hirelc.task import Task


class NoScore(DataError):
    """The metric is no finite number."""


Watch = Callable[[Any, Tensor, Tensor], None]


def accuracy(
    network: nn.Module,
    data: Batches,
    task: Task,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    watch: Watch = lambda inputs, outputs, targets: None,
) -> float:
    """The task's metric over a whole split, in points. The network's mode is restored.

    :param watch: told of every batch: inputs, outputs and targets, on the device
    :raises DataError: the split is empty
    :raises NoScore: the metric is no finite number on it
    """
    training = network.training
    network.eval()
    meter, samples = task.meter(), 0
    try:
        with torch.inference_mode(), running(precision, device):
            for inputs, targets in data.epoch(0, training=False):
                inputs, targets = to_device(inputs, device), to_device(targets, device)
                outputs = task.outputs(steady_call(network, inputs))
                meter.add(outputs, targets)
                watch(inputs, outputs, targets)
                samples += len(targets)
    finally:
        network.train(training)
    if samples == 0:
        raise DataError("the split to evaluate on is empty")
    points = float(meter.points())
    if not math.isfinite(points):
        raise NoScore(f"the {task.name} is {points} on {samples} samples: look at the targets, the metric and the network")
    return points


def native_precision(setting: str, device: str) -> str:
    """Resolves "auto": bf16 where the processor multiplies it natively, else fp32."""
    if setting != "auto":
        return setting
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"


@contextlib.contextmanager
def running(precision: str, device: str) -> Iterator[Any]:
    """Autocast to bf16, or nothing for fp32.

    On the CPU attention then runs unfused where gradients are wanted: the backward pass of the fused bf16 kernel is several
    times slower, its forward pass is faster.
    """
    kind = torch.device(device).type
    if precision != "bf16":
        yield
    elif kind == "cpu" and torch.is_grad_enabled():
        with torch.autocast(kind, torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            yield
    else:
        with torch.autocast(kind, torch.bfloat16):
            yield

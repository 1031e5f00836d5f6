"""Empirical Fisher information: the mean over samples of the squared per-sample gradient of the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hirelc.batches import Batches, map_inputs
from hirelc.errors import DataError
from hirelc.network.calling import call, first_tensor, to_device
from hirelc.network.spec import NetworkSpec
from hirelc.seeds import stream_seed
from hirelc.task import Task


@dataclass(frozen=True)
class Sensitivity:
    """How much the loss cares.

    :param fisher: per kernel, the diagonal of the empirical Fisher, the kernel's shape
    :param kernels: per kernel, its sum on a logarithmic scale from 0 (least of all kernels) to 1 (most)
    :param blocks: the same per block
    :param samples: gradients taken
    """

    fisher: Mapping[str, Tensor]
    kernels: Mapping[str, float]
    blocks: Sequence[float]
    samples: int


def fisher_sensitivity(
    network: nn.Module,
    spec: NetworkSpec,
    data: Batches,
    task: Task,
    samples: int,
    *,
    seed: int,
    device: str = "cpu",
    progress: Callable[[int], None] = lambda done: None,
) -> Sensitivity:
    """One backward pass per sample, in eval mode; the square of a batch-mean gradient would be another thing.

    A sample is one row of the batch, whatever its shape: a whole sequence or map has one gradient. A task without
    targets draws them from what the network itself predicts.

    :raises DataError: no sample gives a finite gradient
    """
    training = network.training
    network.eval()
    weights = {k.name: dict(network.named_parameters())[k.name] for k in spec.kernels}
    total = {name: torch.zeros_like(w, dtype=torch.float32) for name, w in weights.items()}
    flags = {name: w.requires_grad for name, w in weights.items()}
    for weight in weights.values():
        weight.requires_grad_(True)
    used = done = 0
    drawn = torch.Generator().manual_seed(stream_seed(seed, "labels"))
    try:
        for inputs, targets in data.epoch(seed, training=data.samples > samples):
            for i in range(min(len(first_tensor(inputs)), samples - done)):
                one = to_device(map_inputs(inputs, lambda t, i=i: t[i : i + 1]), device)  # type: ignore[misc]
                outputs = task.outputs(call(network, one))
                target = targets[i : i + 1].to(device) if task.label is None else task.label(outputs.detach(), drawn)
                loss = task.loss(outputs, target)
                gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
                done += 1
                progress(done)
                if not all(g is None or bool(torch.isfinite(g).all()) for g in gradients):
                    continue
                used += 1
                for name, gradient in zip(weights, gradients, strict=True):
                    if gradient is not None:
                        total[name] += gradient.float().square()
            if done >= samples:
                break
    finally:
        for name, weight in weights.items():
            weight.requires_grad_(flags[name])
        network.train(training)
    if used == 0:
        raise DataError("no sample gives a finite gradient: check the labels and the weights of the network")
    fisher = {name: value / used for name, value in total.items()}
    sums = {name: float(value.sum()) for name, value in fisher.items()}
    blocks = [sum(sums[name] for name in block.kernels) for block in spec.blocks]
    return Sensitivity(fisher, dict(zip(sums, normalise(list(sums.values())), strict=True)), normalise(blocks), done)


def normalise(sums: Sequence[float]) -> list[float]:
    """Logarithms, moved and scaled to [0, 1]: Fisher sums of one network span orders of magnitude."""
    positive = [value for value in sums if value > 0]
    if not positive:
        return [0.0 for _ in sums]
    low, high = math.log(min(positive)), math.log(max(positive))
    if high - low < 1e-9:
        return [0.5 if value > 0 else 0.0 for value in sums]
    return [(math.log(value) - low) / (high - low) if value > 0 else 0.0 for value in sums]

"""Fine-tuning: quantization-aware, distilled from the original, cosine schedule, best state kept.

The same function trains a compressed network and the uncompressed control.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hirelc.batches import Batches
from hirelc.compression.apply import CompressedNetwork
from hirelc.compression.fakequant import Quantizer
from hirelc.compression.rate import FileGoal, RateTerm
from hirelc.config import TrainConfig
from hirelc.errors import ExecutionError
from hirelc.measure.evaluate import accuracy, native_precision, running
from hirelc.network.calling import call, first_tensor, to_device
from hirelc.seeds import stream_seed
from hirelc.task import Task

WARM_UP = 0.1  # share of the steps
GRADIENT_NORM = 5.0


class Diverged(ExecutionError):
    """The loss of a candidate is no finite number."""


@dataclass(frozen=True)
class Trained:
    """What a fine-tune did.

    :param scores: (images seen, accuracy on the search-validation split) at each evaluation, the start included
    """

    images: int
    seconds: float
    best: float
    scores: tuple[tuple[int, float], ...]
    final_loss: float


@dataclass(frozen=True)
class Trainer:
    """All that fine-tunes of one run share.

    :param teacher: the original, whose logits are the soft targets
    """

    teacher: nn.Module
    train: Batches
    validation: Batches
    task: Task
    config: TrainConfig
    seed: int
    device: str = "cpu"

    @torch.random.fork_rng()
    def finetune(
        self,
        student: nn.Module,
        images: int,
        *,
        name: str,
        evaluations: int | None = None,
        rate_factor: float = 1.0,
        file_goal: FileGoal | None = None,
        progress: Callable[[int], None] = lambda images: None,
    ) -> Trained:
        """Trains in place and leaves the best state (by search-validation) in the student, in eval mode.

        :param images: training samples to see at most (forward and backward)
        :param name: of the random stream
        :param rate_factor: on the peak learning rate
        :param file_goal: the length that the file of a compressed network is led to; None leaves the rate alone
        :raises Diverged: the loss is not finite
        """
        begun = time.monotonic()
        torch.manual_seed(stream_seed(self.seed, "dropout", name))
        steps = max(1, images // self.config.batch_size)
        precision = native_precision(self.config.precision, self.device)
        optimizer = _optimizer(student, rate_factor * self._learning_rate(), self.config.weight_decay)
        peaks = [group["lr"] for group in optimizer.param_groups]
        every = max(1, steps // (evaluations or self.config.evaluations))
        scores = [(0, self._validate(student, precision))]
        rate = None
        if file_goal is not None and isinstance(student, CompressedNetwork):
            rate = RateTerm(student, file_goal, steps)
        best = _Best(student, scores[0][1], rate is None or rate.reached(0))
        seen, loss_value = 0, math.nan
        self.teacher.eval()
        student.train()
        for step, (inputs, targets) in enumerate(self._batches(steps, name)):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * schedule(step, steps)
            loss = self._loss(student, inputs, targets, precision)
            loss_value = float(loss.detach())
            if rate is not None and (term := rate.loss(step)) is not None:
                loss = loss + term
            if not math.isfinite(loss_value):
                raise Diverged(f"the loss became {loss_value} after {seen} images: a lower learning rate may help")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(student.parameters(), GRADIENT_NORM)
            optimizer.step()
            count = len(first_tensor(inputs))
            seen += count
            progress(count)
            if (step + 1) % every == 0 or step + 1 == steps:
                score = self._validate(student, precision)
                scores.append((seen, score))
                late = schedule(step, steps) < 0.5  # while the rate is high, scores sag and say nothing about the end
                best.offer(student, score, rate is None or rate.reached(step), late)
                student.train()
                if best.stale >= self.config.patience:
                    break
        student.load_state_dict(best.state)
        student.eval()
        return Trained(seen, time.monotonic() - begun, best.score, tuple(scores), loss_value)

    def _batches(self, steps: int, name: str) -> Iterator[tuple[Any, Tensor]]:
        done = epoch = 0
        while done < steps:
            before = done
            for batch in self.train.epoch(stream_seed(self.seed, "finetune", name, epoch), training=True):
                yield batch
                done += 1
                if done == steps:
                    return
            if done == before:
                raise ExecutionError("the fine-tuning split gives no batch")
            epoch += 1

    def _loss(self, student: nn.Module, inputs: Any, targets: Any, precision: str) -> Tensor:
        inputs, targets = to_device(inputs, self.device), to_device(targets, self.device)
        share, heat = self.config.distill_weight, self.config.temperature
        with running(precision, self.device):
            with torch.no_grad():
                wanted = self.task.outputs(call(self.teacher, inputs))
            outputs = self.task.outputs(call(student, inputs))
        if self.task.label is not None:
            targets = self.task.label(wanted, None)
        return share * self.task.distill(outputs, wanted, targets, heat) + (1 - share) * self.task.loss(outputs, targets)

    def _validate(self, student: nn.Module, precision: str) -> float:
        return accuracy(student, self.validation, self.task, device=self.device, precision=precision)

    def _learning_rate(self) -> float:
        if self.config.learning_rate is not None:
            return self.config.learning_rate
        return 2e-3 if any(isinstance(m, _BatchNorm) for m in self.teacher.modules()) else 1e-3


class _Best:
    """The state to keep: the best score among those that are small enough; the latest while none is."""

    def __init__(self, student: nn.Module, score: float, fits: bool) -> None:
        self.score, self.fits, self.state, self.stale = score, fits, _snapshot(student), 0

    def offer(self, student: nn.Module, score: float, fits: bool, late: bool) -> None:
        if fits > self.fits or (fits == self.fits and (not fits or score >= self.score)):
            self.score, self.fits, self.state, self.stale = score, fits, _snapshot(student), 0
        elif late:
            self.stale += 1


def schedule(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine to zero; a factor on the peak learning rate."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _optimizer(student: nn.Module, rate: float, decay: float) -> torch.optim.Optimizer:
    """AdamW; norms and biases do not decay, and learned steps move relative to their own size."""
    steps = {id(m.scale): m.scale for m in student.modules() if isinstance(m, Quantizer) and m.scale.requires_grad}
    others = [p for p in student.parameters() if p.requires_grad and id(p) not in steps]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": decay, "lr": rate},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0, "lr": rate},
    ]
    groups += [{"params": [p], "weight_decay": 0.0, "lr": rate * float(p.detach().mean())} for p in steps.values()]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=rate)


def _snapshot(student: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in student.state_dict().items()}

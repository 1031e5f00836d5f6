"""Fine-tuning: quantization-aware, distilled from the original, cosine schedule, best state kept.

The same function trains a compressed network and the uncompressed control.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
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
from hirelc.measure.judge import Judge, mixed_loss
from hirelc.measure.session import Checkpoint, Session, restore_end, save_end
from hirelc.measure.session import Trained as Trained
from hirelc.measure.settle import least_settling, settle, settling_batches
from hirelc.network.calling import call, first_tensor, to_device
from hirelc.policy import Verdict
from hirelc.seeds import stream_seed
from hirelc.task import Task

WARM_UP = 0.1  # share of the steps
USUAL_BATCH = 128  # samples, that the usual learning rates are for; Adam wants the square root of what they grow by
GRADIENT_NORM = 5.0
EXPLODED = 1e6  # times the first loss, or one


class Diverged(ExecutionError):
    """The loss of a candidate is no finite number, or far beyond what it began with."""


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
        checkpoint: Checkpoint | None = None,
    ) -> Trained:
        """Trains in place and leaves the best state in the student, in eval mode: that with the least loss on the
        search-validation split, of a control that with the best metric.

        :param images: training samples to see at most (forward and backward)
        :param name: of the random stream
        :param evaluations: on the way; None as configured. With 0 the last state is left, whatever it is worth
        :param rate_factor: on the peak learning rate
        :param file_goal: the length that the file of a compressed network is led to; None leaves the rate alone
        :param checkpoint: where to keep the state; one that holds a state is gone on from, and ends as if never interrupted
        :raises Diverged: the loss is not finite, or explodes
        """
        begun = time.monotonic()
        saved = None if checkpoint is None else checkpoint.load()
        if (ended := restore_end(saved, student)) is not None:
            return ended
        torch.manual_seed(stream_seed(self.seed, "dropout", name))
        batches = max(1, images // self.config.batch_size)
        settling = settling_batches(student, batches)
        steps = batches - settling
        precision = native_precision(self.config.precision, self.device)
        optimizer = _optimizer(student, rate_factor * self._learning_rate(), self.config.weight_decay)
        led = file_goal is not None and isinstance(student, CompressedNetwork)
        rate = RateTerm(student, file_goal, steps) if led else None  # type: ignore[arg-type]
        session = Session(student, optimizer, rate, lambda: self._validate(student, precision), evaluations == 0)
        if saved is not None:
            session.restore(saved)
            progress(session.seen)
        every = max(1, steps // (self.config.evaluations if evaluations is None else max(1, evaluations)))
        scored = evaluations != 0
        self.teacher.eval()
        student.train()
        for inputs, targets in self._batches(session, steps, name):
            self._step(session, schedule(session.step, steps), inputs, targets, precision)
            progress(len(first_tensor(inputs)))
            if scored and (session.step % every == 0 or session.step == steps):
                self._look(session, precision)
            if checkpoint is not None and checkpoint.due():
                session.save(checkpoint, time.monotonic() - begun)
        if scored:
            student.load_state_dict(session.best.state)
        if settling:
            self._settle(session, settling, stream_seed(self.seed, "settle", name), precision, progress)
        student.eval()
        trained = session.ended(time.monotonic() - begun)
        if checkpoint is not None:
            save_end(checkpoint, student, trained)
        return trained

    def _look(self, session: Session, precision: str) -> None:
        """Scores the state that training has come to, and keeps it where it is the best.

        It never ends a fine-tune: while the rate is high, scores sag, and what began well is passed by at the very end only.
        """
        verdict = self._validate(session.student, precision)
        session.scores.append((session.seen, verdict.points))
        fits = session.rate is None or session.rate.reached()
        session.best.offer(session.student, verdict, fits)
        session.student.train()

    def _settle(self, session: Session, batches: int, seed: int, precision: str, progress: Callable[[int], None]) -> None:
        """Statistics for the best weights; the old ones stay where the new ones are no better."""
        student = session.student
        if session.best.verdict is None:
            fits = session.rate is None or session.rate.goal.met(student)  # type: ignore[arg-type]
            session.best.keep(student, self._validate(student, precision), fits)
        before = {name: tensor.clone() for name, tensor in student.state_dict().items()}

        def count(seen: int) -> None:
            session.seen += seen
            progress(seen)

        self._settled(student, batches, seed, precision, count)
        verdict = self._validate(student, precision)
        session.scores.append((session.seen, verdict.points))
        fits = session.rate is None or not session.best.fits or session.rate.goal.met(student)  # type: ignore[arg-type]
        if fits and session.best.verdict is not None and verdict.beats(session.best.verdict):
            session.best.verdict = verdict
        else:
            student.load_state_dict(before)

    def settle(self, student: nn.Module) -> None:
        """Statistics of BatchNorms for weights that were changed and not trained, in place: always of the same samples."""
        precision = native_precision(self.config.precision, self.device)
        self._settled(student, least_settling(student), stream_seed(self.seed, "settle"), precision)

    def _settled(
        self,
        student: nn.Module,
        batches: int,
        seed: int,
        precision: str,
        count: Callable[[int], None] = lambda images: None,
    ) -> None:
        def forward(batch: Any) -> None:
            with running(precision, self.device):
                call(student, to_device(batch[0], self.device))
            count(len(first_tensor(batch[0])))

        settle(student, islice(self.train.epoch(seed, training=True), batches), forward)

    def _step(self, session: Session, factor: float, inputs: Any, targets: Any, precision: str) -> None:
        """:param factor: on the peak learning rates"""
        for group, peak in zip(session.optimizer.param_groups, session.peaks, strict=True):
            group["lr"] = peak * factor
        loss = self._loss(session.student, inputs, targets, precision)
        session.loss = float(loss.detach())
        if math.isnan(session.first_loss):
            session.first_loss = session.loss
        if session.rate is not None and (term := session.rate.loss(session.step)) is not None:
            loss = loss + term
        if not session.loss < EXPLODED * max(1.0, session.first_loss):  # nor a number
            raise Diverged(f"the loss became {session.loss:.4g} after {session.seen} images: a lower learning rate may help")
        session.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(session.student.parameters(), GRADIENT_NORM)
        session.optimizer.step()
        session.seen += len(first_tensor(inputs))
        session.step += 1

    def _batches(self, session: Session, steps: int, name: str) -> Iterator[tuple[Any, Tensor]]:
        """From where the session stands; batches of its epoch that it has used are read and passed over."""
        while session.step < steps:
            used, found = session.index, 0
            for batch in self.train.epoch(stream_seed(self.seed, "finetune", name, session.epoch), training=True):
                found += 1
                if found <= used:
                    continue
                session.index = found
                yield batch
                if session.step == steps:
                    return
            if not found:
                raise ExecutionError("the fine-tuning split gives no batch")
            session.epoch, session.index = session.epoch + 1, 0

    def _loss(self, student: nn.Module, inputs: Any, targets: Any, precision: str) -> Tensor:
        inputs, targets = to_device(inputs, self.device), to_device(targets, self.device)
        with torch.no_grad(), running(precision, self.device):
            wanted = self.task.outputs(call(self.teacher, inputs))
        with running(precision, self.device):
            outputs = self.task.outputs(call(student, inputs))
        if self.task.label is not None:
            targets = self.task.label(wanted, None)
        return mixed_loss(self.task, self.config.distill_weight, self.config.temperature, outputs, wanted, targets)

    @cached_property
    def judge(self) -> Judge:
        """Metric and loss on the search-validation split."""
        return Judge(self.teacher, self.validation, self.task, self.config.temperature, self.device)

    def _validate(self, student: nn.Module, precision: str) -> Verdict:
        """A control is not to be like the original: the metric alone says how good it is."""
        if isinstance(student, CompressedNetwork):
            return self.judge(student, precision)
        return Verdict(accuracy(student, self.validation, self.task, device=self.device, precision=precision))

    def _learning_rate(self) -> float:
        if self.config.learning_rate is not None:
            return self.config.learning_rate
        usual = 2e-3 if any(isinstance(m, _BatchNorm) for m in self.teacher.modules()) else 1e-3
        return usual * math.sqrt(self.config.batch_size / USUAL_BATCH)


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

"""All that changes while a fine-tune goes on, as one value: what a checkpoint holds and what training goes on from.

Tensors stay tensors and numbers stay numbers (safetensors and JSON): nothing is pickled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hirelc.compression.rate import RateTerm
from hirelc.policy import Verdict
from hirelc.tensorfile import copy_into

Saved = tuple[Mapping[str, Tensor], Mapping[str, Any]]
_RATE_NUMBERS = ("looked", "integral", "strength", "bits", "start_bits", "target_bits")
_OWN_NUMBERS = ("step", "epoch", "index", "seen", "loss", "first_loss", "seconds")


class Checkpoint(Protocol):
    """Where a fine-tune keeps its state while it goes on."""

    def load(self) -> Saved | None:
        """What was saved last; None when nothing was."""

    def due(self) -> bool:
        """Whether it is time to save again."""

    def save(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Keeps tensors and a record that JSON can hold, in the place of the last ones."""


@dataclass(frozen=True)
class Trained:
    """What a fine-tune did.

    :param best: accuracy on the search-validation split of the state that was kept; None where nothing was evaluated
    :param scores: (images seen, that accuracy) at each evaluation, the start included
    :param strength: of the rate term at the end, in loss per bit and weight; None without
    """

    images: int
    seconds: float
    best: float | None
    scores: tuple[tuple[int, float], ...]
    final_loss: float
    strength: float | None = None


class Best:
    """The state to keep: the best among those that are small enough; the latest while none is.

    :ivar verdict: None where it was not asked for
    """

    def __init__(self, student: nn.Module, verdict: Verdict | None, fits: bool) -> None:
        self.keep(student, verdict, fits)

    def keep(self, student: nn.Module, verdict: Verdict | None, fits: bool) -> None:
        self.verdict, self.fits, self.state = verdict, fits, _snapshot(student)

    def offer(self, student: nn.Module, verdict: Verdict, fits: bool) -> None:
        better = self.verdict is None or verdict.beats(self.verdict)
        if fits > self.fits or (fits == self.fits and (not fits or better)):
            self.keep(student, verdict, fits)


class Session:
    """A fine-tune under way.

    :ivar step: optimizer steps done
    :ivar epoch: of the data, and `index`: batches of it that were used
    :ivar seen: training samples
    :ivar seconds: spent before this process
    """

    def __init__(
        self,
        student: nn.Module,
        optimizer: torch.optim.Optimizer,
        rate: RateTerm | None,
        judge: Callable[[], Verdict],
        unscored: bool = False,
    ) -> None:
        """:param unscored: whether the start need not be judged"""
        self.student, self.optimizer, self.rate = student, optimizer, rate
        self.peaks: list[float] = [group["lr"] for group in optimizer.param_groups]
        self.step = self.epoch = self.index = self.seen = 0
        self.loss = self.first_loss = math.nan
        self.seconds = 0.0
        fits = rate is None or rate.reached()
        verdict = None if unscored else judge()
        self.scores = [] if verdict is None else [(0, verdict.points)]
        self.best = Best(student, verdict, fits)

    def save(self, checkpoint: Checkpoint, seconds: float) -> None:
        """:param seconds: spent by this process"""
        random = {"random.cpu": torch.get_rng_state()}
        if self._device().type == "cuda":
            random["random.cuda"] = torch.cuda.get_rng_state(self._device())
        tensors = {
            **_prefixed("student", state_of(self.student)),
            **_prefixed("best", self.best.state),
            **_prefixed("optimizer", self._moments()),
            **({} if self.rate is None else {f"costs.{i}": costs for i, costs in enumerate(self.rate.costs)}),
            **random,
        }
        record: dict[str, Any] = {name: _plain(getattr(self, name)) for name in _OWN_NUMBERS}
        record |= {"seconds": self.seconds + seconds, "scores": self.scores, "peaks": self.peaks}
        record["best"] = {"verdict": self.best.verdict, "fits": self.best.fits}
        if self.rate is not None:
            record["rate"] = {name: getattr(self.rate, name) for name in _RATE_NUMBERS}
        checkpoint.save(tensors, record)

    def restore(self, saved: Saved) -> None:
        """Goes on from a checkpoint, to the bit.

        :raises RunError: it is of another network
        """
        tensors, record = saved
        copy_into(state_of(self.student), _under("student", tensors))
        copy_into(self.best.state, _under("best", tensors))
        self._set_moments(_under("optimizer", tensors))
        for name in _OWN_NUMBERS:
            setattr(self, name, math.nan if record[name] is None else record[name])
        self.scores = [(seen, score) for seen, score in record["scores"]]
        self.peaks = list(record["peaks"])
        best = record["best"]
        self.best.verdict = None if best["verdict"] is None else Verdict(*best["verdict"])
        self.best.fits = best["fits"]
        if self.rate is not None:
            for name in _RATE_NUMBERS:
                setattr(self.rate, name, record["rate"][name])
            costs = _under("costs", tensors)
            self.rate.costs = [costs[str(i)].to(self._device()) for i in range(len(costs))]
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self._device())

    def ended(self, seconds: float) -> Trained:
        """:param seconds: spent by this process"""
        best = None if self.best.verdict is None else self.best.verdict.points
        strength = None if self.rate is None else self.rate.integral
        return Trained(self.seen, self.seconds + seconds, best, tuple(self.scores), self.loss, strength)

    def _moments(self) -> dict[str, Tensor]:
        """The optimizer's state: number of the parameter and name of the moment -> tensor."""
        found: dict[str, Tensor] = {}
        for number, parameter in enumerate(self._parameters()):
            found |= {f"{number}.{name}": value for name, value in self.optimizer.state.get(parameter, {}).items()}
        return found

    def _set_moments(self, moments: Mapping[str, Tensor]) -> None:
        parameters = self._parameters()
        for key, value in moments.items():
            number, _, name = key.partition(".")
            parameter = parameters[int(number)]
            # laid out as its parameter is: sums over another layout may end in other bits
            own = torch.empty_like(parameter) if value.shape == parameter.shape and name != "step" else torch.empty_like(value)
            self.optimizer.state[parameter][name] = own.copy_(value)

    def _device(self) -> torch.device:
        return next(self.student.parameters()).device

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


def save_end(checkpoint: Checkpoint, student: nn.Module, trained: Trained) -> None:
    """Keeps what a fine-tune ended with."""
    checkpoint.save(state_of(student), {"trained": trained_json(trained)})


def restore_end(saved: Saved | None, student: nn.Module) -> Trained | None:
    """Leaves in the student what a fine-tune ended with; None when it has not ended."""
    if saved is None or "trained" not in saved[1]:
        return None
    copy_into(state_of(student), saved[0])
    student.eval()
    return trained_of(saved[1]["trained"])


def state_of(student: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, those that a state dict leaves out included; not copied."""
    return {name: tensor.detach() for name, tensor in (*student.named_parameters(), *student.named_buffers())}


def trained_json(trained: Trained) -> dict[str, Any]:
    """What `trained_of` reads."""
    return {**asdict(trained), "final_loss": _plain(trained.final_loss)}


def trained_of(values: Mapping[str, Any]) -> Trained:
    """The record of a fine-tune from its JSON."""
    scores = tuple((int(seen), float(score)) for seen, score in values["scores"])
    loss = math.nan if values["final_loss"] is None else values["final_loss"]
    return Trained(values["images"], values["seconds"], values["best"], scores, loss, values.get("strength"))


def _plain(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def _snapshot(student: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in student.state_dict().items()}

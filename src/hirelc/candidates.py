"""Rigorous measurement of a policy: applied, fine-tuned to a length, packed, read back, evaluated."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from hirelc import cost
from hirelc.artifact.container import pack, read
from hirelc.artifact.load import build
from hirelc.batches import first_samples
from hirelc.compression.activations import ActivationSite, observe
from hirelc.compression.apply import CompressedNetwork, absorb, apply, cut_fisher, keep_steps
from hirelc.compression.fitting import round_to_bits, scale_to_bits
from hirelc.compression.rate import START, FileGoal, kernel_bits
from hirelc.compression.reconstruct import Reconstruction
from hirelc.errors import FormatError
from hirelc.failures import machine_failure
from hirelc.measure.evaluate import NoScore, native_precision, running
from hirelc.measure.finetune import Diverged, Trained, Trainer
from hirelc.network.calling import call, to_device
from hirelc.network.spec import NetworkSpec
from hirelc.policy import Measurement, Policy, Verdict
from hirelc.tensorfile import pack_tensors

HEAD_ROOM = 1.08  # bits that a fine-tune starts with, for one of the goal: codes get rarer in training, and seldom denser
# A rate term that had to be this strong (loss per bit and weight) will have to be stronger when training goes on, at the cost
# of the network's function, unless that begins with coarser steps: then it fades (docs/decisions/0028).
STUCK, RELEASE = 1.0, 0.94  # the strength; bits to go on with, for one of the goal
FOLLOWED = 30  # steps that weights take to follow the rate term: in fewer, head room would only be rounded away
ROUNDINGS, CAUTION = 4, 0.7
ROUNDED_AWAY = 0.03  # of the wanted length: at half a bit per weight, rounding more away costs points
RECONSTRUCTIONS = 2  # of one candidate at most, to get its file's length right
SAFETY = 0.997  # on the bits of the second one: better a little short than rounded away without compensation
JUDGED_SAMPLES = 512  # by which the weights to start from are chosen
SLACK = 0.02  # of the wanted length that may be left unused


@dataclass
class Bench:
    """Measures policies on the search-validation split. Each fine-tune goes on from the weights of the one before, unless
    the original's serve its policy better.

    With a reconstruction nothing is trained: each candidate starts from the original and is reconstructed instead.

    :param original: the given network, never changed
    :param importance: per kernel and weight, by what channels are kept
    :param fisher: per kernel and weight, by what learned steps start
    :param baseline: accuracy of the original on the search-validation split, in percent
    :param calibration: inputs on which the ranges of 8-bit activations are found; None leaves activations in float
    :param exact: a candidate's file is as short as asked for, whatever it costs; else one that is a little too long stays so
        when rounding would do harm: the long fine-tune, which has the time, makes it shorter
    :ivar current: the weights of the last full fine-tune, and `trained` that network itself; None before the first
    :ivar strength: of the rate term, as that fine-tune ended with it
    :ivar reserve: bits that coarser steps may leave / bits that reconstructed codes may take; found by measuring
    :ivar rounded_alone: kernels of the last candidate that could not be reconstructed -> the reason
    """

    original: nn.Module
    spec: NetworkSpec
    trainer: Trainer
    importance: Mapping[str, Tensor]
    fisher: Mapping[str, Tensor]
    baseline: float
    images_seen: int = 0
    calibration: Any = None
    reconstruction: Reconstruction | None = None
    exact: bool = True
    reserve: float = field(default=1.0, init=False)
    strength: float = field(default=START, init=False)
    rounded_alone: Mapping[str, str] = field(default_factory=dict, init=False)
    current: nn.Module = field(init=False)
    trained: CompressedNetwork | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.current = copy.deepcopy(self.original)

    def measure(
        self,
        policy: Policy,
        target_bytes: int,
        images: int,
        name: str,
        progress: Callable[[int], None] = lambda images: None,
        *,
        fidelity: str = "full",
        start: Candidate | None = None,
        rate_factor: float = 1.0,
    ) -> tuple[Measurement, Candidate | None]:
        """A measurement, and the candidate unless it failed.

        :param target_bytes: length that the file is led to
        :param images: training samples to see at most; with none the policy is only calibrated
        :param fidelity: only a "full" measurement's weights are gone on from
        :param start: the same policy measured with less training, to go on from
        :param rate_factor: on the peak learning rate, which is higher where few bits are left for each weight
        A loss that is not finite, memory that runs out, or weights that the file cannot hold reject the candidate,
        not the run.
        """
        begun = time.monotonic()
        before = self.images_seen

        def count(seen: int) -> None:
            self.images_seen += seen
            progress(seen)

        try:
            compressed = self._started(policy, target_bytes) if start is None else self.revive(start)
            trained: Trained | None = None
            if self.reconstruction is not None:
                data = self.reconstruct(self.reconstruction, compressed, target_bytes)
            elif images == 0:
                data = self.calibrate(compressed, target_bytes)
            else:
                factor = rate_factor * self._haste(compressed, target_bytes)
                settings = {"name": name, "evaluations": 0, "rate_factor": factor, "progress": count}
                trained, data = self.finetune(compressed, target_bytes, images, **settings)
            # trials are compared with each other: what is delivered, or predicted from, is measured exactly
            precision = "fp32" if fidelity == "full" else native_precision(self.trainer.config.precision, self.trainer.device)
            verdict = self.read_back(data, precision)
        except (Diverged, NoScore, FormatError, RuntimeError, MemoryError, OSError) as error:
            reason = _reason(error)
            if reason is None:
                raise
            failed = self._failed(policy, target_bytes, reason, self.images_seen - before, time.monotonic() - begun)
            return replace(failed, fidelity=fidelity), None
        if trained is not None and fidelity == "full":
            self._take_up(compressed, trained)
        measurement = Measurement(
            size_bytes=len(data),
            accuracy=verdict.points,
            drop_points=self.baseline - verdict.points,
            macs=cost.macs(self.spec, compressed.policy),
            split="search-validation",
            images_seen=self.images_seen - before,
            seconds=time.monotonic() - begun,
            fidelity=fidelity,
            excess_loss=verdict.excess_loss,
        )
        return measurement, candidate_of(compressed, data, trained)

    def go_on_from(self, candidate: Candidate) -> None:
        """Later fine-tunes begin with its weights, and with the steps of kernels that they treat alike."""
        self._take_up(self.revive(candidate), candidate.trained)

    def _take_up(self, compressed: CompressedNetwork, trained: Trained | None) -> None:
        absorb(self.current, compressed)
        self.trained = compressed
        if trained is not None and trained.strength is not None:
            self.strength = trained.strength

    def _started(self, policy: Policy, target_bytes: int) -> CompressedNetwork:
        """The policy on the weights of the fine-tune before or on the original's, whichever keeps more at this length.

        Weights trained for one policy may be worth nothing under another: at half a bit each, most are zeros.
        """
        if self.reconstruction is not None:
            return self._applied(self.original, policy)
        anew = self._begun(self.original, policy, target_bytes)
        if self.trained is None:
            return anew
        on = self._begun(self.current, policy, target_bytes, self.trained)
        for compressed in (on, anew):
            self.trainer.settle(compressed)
        return max(on, anew, key=self._first_points)

    def _begun(
        self, network: nn.Module, policy: Policy, target_bytes: int, trained: CompressedNetwork | None = None
    ) -> CompressedNetwork:
        compressed = self._applied(network, policy)
        if trained is not None:
            keep_steps(compressed, trained)
        goal = self._goal(target_bytes)
        scale_to_bits(compressed, cut_fisher(self.fisher, compressed), HEAD_ROOM * goal.kernel_bits(compressed))
        return compressed

    @torch.no_grad()
    def _first_points(self, compressed: CompressedNetwork) -> float:
        """The task's metric on the first samples of the search-validation split."""
        inputs, targets = first_samples(self.trainer.validation, JUDGED_SAMPLES)
        meter, task, device = self.trainer.task.meter(), self.trainer.task, self.trainer.device
        with running(native_precision(self.trainer.config.precision, device), device):
            outputs = task.outputs(call(compressed.eval(), to_device(inputs, device)))
        meter.add(outputs, to_device(targets, device))
        return float(meter.points())

    def _applied(self, network: nn.Module, policy: Policy) -> CompressedNetwork:
        compressed = apply(network, self.spec, policy, self.importance, self.fisher)
        if self.calibration is not None:
            names = [kernel.name for kernel in self.spec.kernels]
            found = observe(compressed.network, names, [self.calibration], run=compressed.eval())
            compressed.quantize_activations(found.sites)
        return compressed

    def calibrate(self, compressed: CompressedNetwork, target_bytes: int) -> bytes:
        """Coarser steps and rounding that lead to a length of the file, statistics of BatchNorms, and no training."""
        importance = cut_fisher(self.fisher, compressed)
        goal = self._goal(target_bytes)
        scale_to_bits(compressed, importance, goal.kernel_bits(compressed))
        self.trainer.settle(compressed)
        self._round_away(compressed, importance, goal)
        return pack(compressed)

    def finetune(self, compressed: CompressedNetwork, target_bytes: int, images: int, **settings: Any) -> tuple[Trained, bytes]:
        """Coarser steps to begin at a length of the file, a fine-tune that stays there, rounding of what is left over.

        The file is longer than wanted where no rounding can make it shorter, and, unless `exact`, where much is left over.
        """
        importance = cut_fisher(self.fisher, compressed)
        goal = self._goal(target_bytes, self.strength)
        led_to = goal if self.trainer.config.rate_term else None
        follows = led_to is not None and images >= FOLLOWED * self.trainer.config.batch_size
        room = self._room(compressed) if follows else 1.0
        scale_to_bits(compressed, importance, room * goal.kernel_bits(compressed))
        trained = self.trainer.finetune(compressed, images, file_goal=led_to, **settings)
        if self.exact or goal.written(compressed) <= (1 + ROUNDED_AWAY) * target_bytes:
            self._round_away(compressed, importance, goal)
        return trained, pack(compressed)

    def _room(self, compressed: CompressedNetwork) -> float:
        """Bits that a fine-tune starts with at most, for one of the goal."""
        goes_on = any(quantizer.trained for quantizer in compressed.quantizer_of().values())
        return RELEASE if goes_on and self.strength > STUCK else HEAD_ROOM

    def rounded(self, compressed: CompressedNetwork, target_bytes: int, most_points: float) -> bytes:
        """The file of a trained network that came out too long, rounded to its length in place; as it is where that would
        cost more than `most_points`."""
        before, data = copy.deepcopy(compressed.state_dict()), pack(compressed)
        self._round_away(compressed, cut_fisher(self.fisher, compressed), self._goal(target_bytes))
        shorter = pack(compressed)
        if self.read_back(data).points - self.read_back(shorter).points <= most_points:
            return shorter
        compressed.load_state_dict(before)
        return data

    def reconstruct(self, reconstruction: Reconstruction, compressed: CompressedNetwork, target_bytes: int) -> bytes:
        """Coarser steps and a reconstruction that end at a length of the file, rounding of what is left over.

        Reconstructed codes take a little more than the steps let expect; how much is learned from each candidate.
        """
        importance = cut_fisher(self.fisher, compressed)
        goal = self._goal(target_bytes)
        start = copy.deepcopy(compressed.state_dict())
        for _ in range(RECONSTRUCTIONS):
            compressed.load_state_dict(start)
            allowed = self.reserve * goal.kernel_bits(compressed)
            led = kernel_bits(compressed) > allowed
            scale_to_bits(compressed, importance, allowed)
            self.rounded_alone = reconstruction(compressed)
            size = goal.written(compressed)
            if size <= target_bytes and not (led and size < (1 - SLACK) * target_bytes):
                break
            self.reserve *= SAFETY * goal.kernel_bits(compressed) / kernel_bits(compressed)
        self._round_away(compressed, importance, goal)
        return pack(compressed)

    def _haste(self, compressed: CompressedNetwork, target_bytes: int) -> float:
        return self._goal(target_bytes).haste(compressed) if self.trainer.config.rate_term else 1.0

    def _goal(self, target_bytes: int, strength: float = START) -> FileGoal:
        return FileGoal(target_bytes, lambda network: len(pack(network)), strength)

    def _round_away(self, compressed: CompressedNetwork, importance: Mapping[str, Tensor], goal: FileGoal) -> None:
        for last in [False] * (ROUNDINGS - 1) + [True] * 2:
            if goal.met(compressed):
                break
            # most of the way only, but for the last time: as codes get rarer, the coder's gains grow
            now, wanted = kernel_bits(compressed), goal.kernel_bits(compressed)
            round_to_bits(compressed, importance, wanted if last else now - CAUTION * (now - wanted))

    def read_back(self, data: bytes, precision: str = "fp32") -> Verdict:
        """What the network that a file holds does on the search-validation split."""
        network = build(read(data), copy.deepcopy(self.original)).to(self.trainer.device)
        return self.trainer.judge(network, precision)

    def take_over(self, measurement: Measurement, candidate: Candidate | None, memory: Mapping[str, Any]) -> None:
        """Makes a measurement that was made before this process count, as if it had been made now.

        :param candidate: None where it failed, or where its weights are not gone on from
        :param memory: what `memory` was after it
        """
        self.images_seen += measurement.images_seen
        self.reserve, self.rounded_alone = memory["reserve"], dict(memory["rounded_alone"])
        self.strength = memory.get("strength", START)
        if candidate is not None and candidate.trained is not None and measurement.fidelity == "full":
            self.go_on_from(candidate)

    @property
    def memory(self) -> dict[str, Any]:
        """What is learned from each measurement besides its weights; JSON-ready."""
        return {"reserve": self.reserve, "strength": self.strength, "rounded_alone": dict(self.rounded_alone)}

    def revive(self, candidate: Candidate) -> CompressedNetwork:
        """The compressed network of a candidate, with its trained weights, steps and ranges."""
        compressed = apply(self.original, self.spec, candidate.policy, self.importance, self.fisher)
        compressed.quantize_activations(candidate.sites)
        compressed.load_state_dict(safetensors.torch.load(candidate.state))
        for name, quantizer in compressed.quantizer_of().items():
            quantizer.trained = name in candidate.trained_steps
        return compressed

    def _failed(self, policy: Policy, target_bytes: int, reason: str, images: int, seconds: float) -> Measurement:
        drop = abs(self.baseline) + 100  # worse than anything measured, whatever the metric's range
        return Measurement(
            size_bytes=target_bytes,
            accuracy=self.baseline - drop,
            drop_points=drop,
            macs=cost.macs(self.spec, policy),
            split="search-validation",
            images_seen=images,
            seconds=seconds,
            failure=reason,
        )


@dataclass(frozen=True)
class Candidate:
    """What is kept of a measured policy: its file, and the training state that the final fine-tune goes on from.

    :param trained: None where nothing was
    :param trained_steps: kernels whose steps come from training, this policy's or that of the weights it began with
    """

    policy: Policy
    sites: tuple[ActivationSite, ...]
    data: bytes
    state: bytes
    trained: Trained | None
    trained_steps: frozenset[str] = frozenset()


def candidate_of(compressed: CompressedNetwork, data: bytes, trained: Trained | None) -> Candidate:
    """What is kept of a compressed network and its file."""
    steps = {name for name, quantizer in compressed.quantizer_of().items() if trained is not None or quantizer.trained}
    return Candidate(compressed.policy, compressed.sites(), data, save_state(compressed), trained, frozenset(steps))


def _reason(error: Exception) -> str | None:
    """Why a candidate failed; None when it is not the candidate's fault, nor the machine's."""
    known = isinstance(error, Diverged | NoScore | FormatError)
    return f"{type(error).__name__}: {error}" if known else machine_failure(error)


def save_state(compressed: CompressedNetwork) -> bytes:
    """The float weights and steps behind a compressed network, as safetensors."""
    return pack_tensors(compressed.state_dict(), {})

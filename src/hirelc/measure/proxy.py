"""The logit-MSE proxy: how far the logits move when one kernel is compressed, on a cached calibration batch.

Real forward passes are made at a few anchors per kernel: some precisions, some keep ratios; they begin at the kernel's
block where the network allows it (see `entrance`). Between anchors the
proxy follows the error on the weights (Fisher-weighted for quantization, importance lost for pruning), which is
exact and cheap, on a log-log line. Pruning takes rounding errors away with the channels: how much of them is left is
measured at one point per kernel. Over kernels the proxy adds up; the search corrects the sum by measurements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hirelc.batches import batch_length, map_inputs
from hirelc.compression.fakequant import Quantizer
from hirelc.compression.prune import select
from hirelc.compression.quantize import coarser
from hirelc.compression.rate import zero_order_bits
from hirelc.measure.entrance import Entrances
from hirelc.network.calling import call
from hirelc.network.spec import Kernel, NetworkSpec, Pruning
from hirelc.network.surgery import Kept, cut, masked_state, slices_of
from hirelc.policy import Choice, Granularity, NumberType
from hirelc.precision import can_be_coarse, with_precision
from hirelc.task import CLASSIFICATION, Task

ANCHORS = (0, 2, 5, 8, 12, 16, 18)  # rungs of the ladder of precision
ANCHOR_KEEPS = (0.875, 0.75, 0.5, 0.25)
JOINT_KEEP = 0.75  # where quantization and pruning are measured together
LEAST_LEFT, MOST_LEFT = 0.25, 3.0  # of a distortion by quantization at half of the channels
AT_ONCE = 64_000_000  # output values that one forward pass may give
COMPARED = 16_000_000  # output values that are kept: of more (sequences over a vocabulary, maps), every k-th

_Format = tuple[str, int, int, NumberType, Granularity]


class LogitProxy:
    """Distortion of single kernels, divided by the variance of the original's logits.

    :param inputs: the calibration batch
    :param importance: per kernel and weight, what `prune.select` ranks by
    :param fisher: per kernel and weight, the diagonal Fisher
    :param task: says what of the network's output is compared
    """

    def __init__(
        self,
        network: nn.Module,
        spec: NetworkSpec,
        inputs: Any,
        importance: Mapping[str, Tensor],
        fisher: Mapping[str, Tensor],
        progress: Callable[[], None] = lambda: None,
        task: Task = CLASSIFICATION,
    ) -> None:
        self.network = network.eval()
        self.task = task
        self.spec = spec
        self.inputs = inputs
        self.importance = importance
        self.fisher = fisher
        self.weights = {name: p.detach() for name, p in network.named_parameters() if name in spec.by_name}
        self.forward_passes = 0
        self.chunk, self.stride = self._portions()
        self.logits = self._outputs(None)
        self.finite = torch.isfinite(self.logits)  # outputs that a network masks itself stay out of the comparison
        self.variance = float(self.logits[self.finite].var()) + 1e-12
        self._errors: dict[_Format, tuple[float, float]] = {}
        self._by_format: dict[_Format, float] = {}
        self._by_keep: dict[tuple[str, float], float] = {}
        self._steps: dict[tuple[str, Choice], tuple[Quantizer, Tensor]] = {}
        self._losses: dict[tuple[str, float], float] = {}
        self._quantization: dict[str, _Curve] = {}
        self._pruning: dict[str, _Curve] = {}
        self._left: dict[str, float] = {}
        self._entrances = self._recorded()
        for kernel in spec.kernels:
            if kernel.block is not None:
                self._quantization[kernel.name] = self._quantization_curve(kernel)
                if kernel.pruning is not Pruning.NONE:
                    self._pruning[kernel.name] = self._pruning_curve(kernel)
                    self._left[kernel.name] = self._exponent(kernel.name)
                progress()
        self._entrances = None  # all anchors are measured: the memory goes back

    def _recorded(self) -> Entrances | None:
        """Outputs of the blocks, from which passes go on; None where a pass is cut into portions."""
        if self.chunk < batch_length(self.inputs):
            return None
        return Entrances(self.network, [block.name for block in self.spec.blocks], lambda: self._outputs(None))

    def distortion(self, kernels: Sequence[str], choices: Sequence[Choice]) -> float:
        """Sum over kernels (of one block) of what quantization and pruning do to the logits; zero or more."""
        total = 0.0
        pruned: set[int] = set()
        for name, choice in zip(kernels, choices, strict=True):
            total += self._rounded(name, choice) * self._share_left(name, choice.keep_ratio)
            if choice.keep_ratio < 1 and name in self._pruning:
                coupling = self.spec.coupling_of.get(name)
                if coupling is None or coupling not in pruned:
                    total += self._pruned(name, choice.keep_ratio)
                if coupling is not None:
                    pruned.add(coupling)
        return total

    def network_distortion(self, state: Mapping[str, Tensor]) -> float:
        """One real forward pass with some tensors replaced; blocks before all of them need not run again."""
        self.forward_passes += 1
        with nullcontext() if self._entrances is None else self._entrances.before(state):
            moved = (self._outputs(state) - self.logits)[self.finite]
        value = float(moved.square().mean()) / self.variance
        return value if math.isfinite(value) else 1e6

    def _portions(self) -> tuple[int, int]:
        """Samples in one forward pass, and which share of the output values is kept: outputs may be huge."""
        with torch.inference_mode():
            one = self.task.outputs(call(self.network, map_inputs(self.inputs, lambda tensor: tensor[:1])))
        count = batch_length(self.inputs)
        stride = max(1, math.ceil(one.numel() * count / COMPARED))
        while stride > 1 and math.gcd(stride, one.shape[-1]) > 1:  # else some columns would never be seen
            stride += 1
        return max(1, min(count, AT_ONCE // max(1, one.numel()))), stride

    @torch.inference_mode()
    def _outputs(self, state: Mapping[str, Tensor] | None) -> Tensor:
        parts = []
        for start in range(0, batch_length(self.inputs), self.chunk):
            inputs = map_inputs(self.inputs, lambda tensor, start=start: tensor[start : start + self.chunk])  # type: ignore[misc]
            outputs = self.task.outputs(call(self.network, inputs, state))
            parts.append(outputs.reshape(len(outputs), -1)[:, :: self.stride])
        return torch.cat(parts)

    def weight_error(self, name: str, choice: Choice) -> float:
        """Fisher-weighted squared error of quantizing a kernel as a whole."""
        return self._quantized(name, choice)[0]

    def code_bits(self, name: str, choice: Choice) -> float:
        """Zero-order entropy of a kernel's codes before any training, bits per weight."""
        return self._quantized(name, choice)[1]

    def _quantized(self, name: str, choice: Choice) -> tuple[float, float]:
        """Error of a kernel as a whole, bits per weight."""
        key = _format(name, choice)
        if key not in self._errors:
            weight = self.weights[name]
            with torch.no_grad():
                quantizer = self._quantizer(name, choice)
                delta = (quantizer(weight) - weight).square()
                error = float((delta * (self.fisher[name] + self.fisher[name].mean())).sum())
                self._errors[key] = error, zero_order_bits(quantizer, weight) / weight.numel()
        return self._errors[key]

    def _rounded(self, name: str, choice: Choice) -> float:
        """Distortion by quantization. Both parts are asked for thousands of times a second."""
        key = _format(name, choice)
        known = self._by_format.get(key)
        if known is None:
            known = self._by_format[key] = self._quantization[name](self.weight_error(name, choice))
        return known

    def _pruned(self, name: str, ratio: float) -> float:
        """Distortion by pruning."""
        key = (name, ratio)
        known = self._by_keep.get(key)
        if known is None:
            known = self._by_keep[key] = self._pruning[name](self._lost(name, ratio))
        return known

    def _share_left(self, name: str, ratio: float) -> float:
        """Which part of a kernel's distortion by quantization is left with so many channels: a power, 1 at all of them."""
        exponent = self._left.get(name, 0.0)
        return 1.0 if exponent == 0 or ratio >= 1 else float(ratio**exponent)

    def joint(self, kernel: str) -> Choice:
        """The choice with which both are measured together, at a precision that does as much as the pruning does."""
        learned = Choice(keep_ratio=JOINT_KEEP, granularity=Granularity.LEARNED)
        wanted = self._pruned(kernel, JOINT_KEEP)
        return min(
            (with_precision(learned, rung) for rung in ANCHORS),
            key=lambda choice: abs(math.log((self._rounded(kernel, choice) + 1e-30) / (wanted + 1e-30))),
        )

    def joint_state(self, kernel: str, choice: Choice) -> Mapping[str, Tensor]:
        """The tensors of the network with one kernel quantized and pruned."""
        state = masked_state(self.network, self.spec, self._kept(kernel, choice.keep_ratio))
        weight = self.weights[kernel]
        with torch.no_grad():
            quantized = self._quantizer(kernel, choice)(weight)
        state[kernel] = torch.where((state.get(kernel, weight) == 0) & (weight != 0), 0.0, quantized)
        return state

    def _exponent(self, kernel: str) -> float:
        """Of the channels left, so that the part of the rounding's distortion is as measured."""
        choice = self.joint(kernel)
        rounded, pruned = self._rounded(kernel, choice), self._pruned(kernel, JOINT_KEEP)
        if rounded <= 0 or pruned <= 0:
            return 0.0
        left = max((self.network_distortion(self.joint_state(kernel, choice)) - pruned) / rounded, 1e-3)
        least, most = (math.log(part) / math.log(0.5) for part in (MOST_LEFT, LEAST_LEFT))
        return min(max(math.log(left) / math.log(JOINT_KEEP), least), most)

    def _quantizer(self, name: str, choice: Choice) -> Quantizer:
        """A quantizer of a kernel as a whole. Coarser steps follow from the one of least error, which is searched once."""
        key = (name, replace(choice, keep_ratio=1.0, coarse=0))
        if key not in self._steps:
            found = Quantizer(self.weights[name], self.spec.by_name[name].channel_dim, key[1], self.fisher[name])
            self._steps[key] = found, found.scale.detach().clone()
        quantizer, scale = self._steps[key]
        quantizer.scale.copy_(coarser(scale, choice.coarse) if can_be_coarse(choice) else scale)
        return quantizer

    def _quantization_curve(self, kernel: Kernel) -> _Curve:
        points = []
        for rung in ANCHORS:
            choice = with_precision(Choice(granularity=Granularity.LEARNED), rung)
            weight = self.weights[kernel.name]
            with torch.no_grad():
                quantized = self._quantizer(kernel.name, choice)(weight)
            points.append((self.weight_error(kernel.name, choice), self.network_distortion({kernel.name: quantized})))
        return _Curve(points)

    def _pruning_curve(self, kernel: Kernel) -> _Curve:
        coupling = self.spec.coupling_of.get(kernel.name)
        if coupling is not None:
            first = next(n for n in self.spec.couplings[coupling].producers if n in self.spec.by_name)
            if first in self._pruning:
                return self._pruning[first]
        points = []
        for ratio in ANCHOR_KEEPS:
            kept = self._kept(kernel.name, ratio)
            if kept.units or kept.rows:
                state = masked_state(self.network, self.spec, kept)
                points.append((self._lost(kernel.name, ratio), self.network_distortion(state)))
        return _Curve(points)

    def _kept(self, name: str, ratio: float) -> Kept:
        """Only this kernel (and what is coupled to it) pruned."""
        coupling = self.spec.coupling_of.get(name)
        affected = {name} if coupling is None else set(self.spec.couplings[coupling].producers)
        policy = {k.name: Choice(8, ratio if k.name in affected else 1.0) for k in self.spec.kernels}
        return select(self.spec, policy, self.importance)

    def _lost(self, name: str, ratio: float) -> float:
        """Importance that pruning to this ratio removes."""
        key = (name, ratio)
        if key not in self._losses:
            lost = 0.0
            for tensor, cuts in slices_of(self.spec, self._kept(name, ratio)).items():
                if tensor in self.importance:
                    importance = self.importance[tensor]
                    lost += float(importance.sum() - cut(importance, cuts).sum())
            self._losses[key] = lost
        return self._losses[key]


def _format(name: str, choice: Choice) -> _Format:
    """A kernel and all of its choice but the channels."""
    return name, choice.bits, choice.coarse, choice.number_type, choice.granularity


class _Curve:
    """Distortion as a function of an error: a polyline through anchors in log-log, slope one beyond them."""

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        kept = sorted((max(e, 1e-30), max(d, 1e-12)) for e, d in points)
        self.errors = np.log([e for e, _ in kept])
        # more error never counts as less distortion: a calibration batch is noisy
        self.distortions = np.maximum.accumulate(np.log([d for _, d in kept])) if kept else np.empty(0)

    def __call__(self, error: float) -> float:
        if error <= 0 or not len(self.errors):
            return 0.0
        at = math.log(error)
        low, high = self.errors[0], self.errors[-1]
        value = float(np.interp(at, self.errors, self.distortions))
        return math.exp(value + min(at - low, 0.0) + max(at - high, 0.0))

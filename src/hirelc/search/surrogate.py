"""Predicting the drop after fine-tuning: a cold-start law of the distortion, then a small learned correction.

Features are *intensive*: those of a block say what the whole network would be if every block were treated like
this one. One predictor therefore serves a block's agents and the network's, and its prediction varies with
every action (in the published code it was constant: ALGORITHM.md, "Known faults").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log10
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from hirelc.policy import Choice, Granularity, NumberType
from hirelc.precision import precision_of
from hirelc.search.bounds import blocks_bytes, size_fraction
from hirelc.search.doubt import Doubt
from hirelc.search.isolation import isolated
from hirelc.search.problem import KernelInfo, Problem

Floats = NDArray[np.float64]

FEATURES = ("log10_distortion", "log2_size", "precision", "keep", "float", "uniform", "log", "learned")
_LEAST_DISTORTION = 1e-9
CLEARLY = 0.9  # of the law's error: a correction that is better by chance ranks policies worse
# Corrections are parts of the law's drop (of so many points at least): else the few large drops decide them, and they mix
# up the small ones. Half of what is learned is believed.
LEAST_PART, BELIEVED = 0.2, 0.5
_APART = np.array([0.5, 1.0, 3.0, 0.2, 0.3, 0.3, 0.3, 0.3])  # what difference in a feature makes another policy


class DropModel(Protocol):
    """Predicts accuracy points lost after fine-tuning from `features`, shape (len(FEATURES),)."""

    def predict(self, features: Floats) -> float: ...


def features(kernels: Sequence[KernelInfo], choices: Sequence[Choice], fraction: float, distortion: float) -> Floats:
    """Intensive features of a set of kernels, shape (len(FEATURES),); means are weighted by the kernels' weights.

    :param fraction: size fraction of these kernels
    :param distortion: logit distortion of the network if it were all treated like this
    """
    total = sum(kernel.weights for kernel in kernels)
    precision = keep = floats = uniform = log = learned = 0.0
    for kernel, choice in zip(kernels, choices, strict=True):
        part = kernel.weights / total
        precision += part * precision_of(choice)
        keep += part * choice.keep_ratio
        floats += part * (choice.number_type is NumberType.FLOAT)
        uniform += part * (choice.granularity is Granularity.UNIFORM)
        log += part * (choice.granularity is Granularity.LOG)
        learned += part * (choice.granularity is Granularity.LEARNED)
    size = float(np.log2(max(fraction, 1e-6)))
    return np.array([log10(max(distortion, _LEAST_DISTORTION)), size, precision, keep, floats, uniform, log, learned])


def distortion_of(problem: Problem, choices: Sequence[Sequence[Choice]]) -> float:
    """Distortion of the whole network, to first order the sum over its blocks."""
    return sum(problem.block_distortion(block, decided) for block, decided in enumerate(choices))


def network_features(problem: Problem, choices: Sequence[Sequence[Choice]]) -> Floats:
    """Features of a whole policy."""
    kernels = [kernel for block in problem.blocks for kernel in block.kernels]
    flat = [choice for decided in choices for choice in decided]
    payload = sum(problem.block_bytes(block, decided) for block, decided in enumerate(choices))
    return features(kernels, flat, payload / blocks_bytes(problem), distortion_of(problem, choices))


def block_features(problem: Problem, block: int, choices: Sequence[Choice], distortion_share: float) -> Floats:
    """Features of the network if every block were hit as hard as this one.

    :param distortion_share: the block's part of the distortion of the reference policy
    """
    distortion = problem.block_distortion(block, choices) / distortion_share
    return features(problem.blocks[block].kernels, choices, size_fraction(problem, block, choices), distortion)


@dataclass(frozen=True)
class ColdStart:
    """drop = offset + kappa * distortion ** power.

    The prior says that logits distorted as much as they vary cost a point after fine-tuning, and that fine-tuning
    recovers the more the more there is to recover. Measurements move it by ridge regression towards that prior.

    :param kappa: points lost at distortion 1 beyond the offset, above 0
    :param offset: points lost (or, below 0, gained) by fine-tuning where hardly anything is distorted
    """

    kappa: float = 1.0
    power: float = 0.4
    offset: float = 0.0

    def predict(self, features: Floats) -> float:
        return self.of_distortion(10 ** float(features[0]))

    def of_distortion(self, distortion: float) -> float:
        """Drop in points of a network of this distortion, which is zero or more."""
        return self.offset + self.kappa * float(distortion**self.power)

    def refitted(self, inputs: Floats, drops: Floats) -> ColdStart:
        """The law with this one as prior, given measurements.

        For each power of a grid, offset and slope have a closed form, twice: large drops are less certain than small
        ones, and how large they are follows from the first solution. The slope stays positive, so that the predicted
        drop varies with the distortion whatever was measured. Where most policies lie, at a distortion of a tenth, the
        prior is about the slope's size there: kappa at 1 is an extrapolation.

        :param inputs: (samples, features); :param drops: points, (samples,)
        """
        noise, relative, offset_spread, slope_spread, power_spread, least = 0.3, 0.2, 0.3, 1.5, 0.3, 0.02
        powers = np.linspace(0.1, 1.6, 61)
        laws = 10 ** (powers[:, None] * (inputs[:, 0] + 1))  # (powers, samples)
        expected = self.kappa * 0.1**self.power
        variances = np.full_like(laws, noise**2)
        for _ in range(2):
            s00 = (1 / variances).sum(1) + 1 / offset_spread**2
            s01, s11 = (laws / variances).sum(1), (laws**2 / variances).sum(1) + 1 / slope_spread**2
            b0 = (drops / variances).sum(1) + self.offset / offset_spread**2
            b1 = (laws * drops / variances).sum(1) + expected / slope_spread**2
            slopes = np.maximum((s00 * b1 - s01 * b0) / (s00 * s11 - s01**2), least)
            offsets = (b0 - s01 * slopes) / s00
            guesses = offsets[:, None] + slopes[:, None] * laws
            variances = noise**2 + (relative * np.maximum(guesses, 0.0)) ** 2
        costs = ((drops - guesses) ** 2 / variances + np.log(variances)).sum(1)
        costs += ((slopes - expected) / slope_spread) ** 2 + ((offsets - self.offset) / offset_spread) ** 2
        best = int(np.argmin(costs + ((powers - self.power) / power_spread) ** 2))
        return ColdStart(float(slopes[best] * 10 ** powers[best]), float(powers[best]), float(offsets[best]))


def ranks(values: Floats) -> Floats:
    """Ranks from 0, ties averaged; shape (n,)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts + 1) / 2)[inverse])


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rho; None for fewer than three pairs or where one side does not vary."""
    x, y = ranks(np.asarray(a, float)), ranks(np.asarray(b, float))
    if len(x) < 3 or x.std() == 0 or y.std() == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


class _Networks:
    """Many MLPs (64, 32) of one shape, trained together by batched products; evaluated in numpy, one row at a time."""

    WIDTHS, STEPS, RATE, DECAY = (64, 32), 150, 1e-2, 0.03

    def __init__(self, seed: int, inputs: Floats, targets: Floats, masks: Floats) -> None:
        """
        :param inputs: (samples, features)
        :param targets: (networks, samples)
        :param masks: (networks, samples), weight of each sample in each network's loss
        """
        with isolated(seed):
            self._layers = self._train(*(torch.as_tensor(a, dtype=torch.float32) for a in (inputs, targets, masks)))

    def _train(
        self, inputs: torch.Tensor, targets: torch.Tensor, masks: torch.Tensor
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        sizes = (inputs.shape[1], *self.WIDTHS, 1)
        parameters = []
        for fan_in, fan_out in pairwise(sizes):
            scale = fan_in**-0.5 if fan_out > 1 else 0.1 * fan_in**-0.5
            weight = (torch.randn(len(masks), fan_in, fan_out) * scale).requires_grad_()
            parameters.append((weight, torch.zeros(len(masks), 1, fan_out, requires_grad=True)))
        optimizer = torch.optim.AdamW([p for pair in parameters for p in pair], lr=self.RATE, weight_decay=self.DECAY)
        masks = masks / masks.sum(1, keepdim=True)
        for _ in range(self.STEPS):
            hidden = inputs.expand(len(masks), -1, -1)
            for depth, (weight, bias) in enumerate(parameters):
                hidden = torch.baddbmm(bias, hidden, weight)
                if depth < len(self.WIDTHS):
                    hidden = torch.tanh(hidden)
            loss = (masks * (hidden[..., 0] - targets) ** 2).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return [(weight.detach().numpy(), bias.detach().numpy()) for weight, bias in parameters]

    def keep(self, count: int) -> None:
        """Drops all networks but the first ones."""
        self._layers = [(weight[:count], bias[:count]) for weight, bias in self._layers]

    def __call__(self, row: Floats) -> Floats:
        """Output of every network for one row of inputs, (networks,)."""
        hidden = row.astype(np.float32)[None, None, :]
        for depth, (weight, bias) in enumerate(self._layers):
            hidden = hidden @ weight + bias
            if depth < len(self.WIDTHS):
                hidden = np.tanh(hidden)
        return hidden[:, 0, 0].astype(np.float64)


class Surrogate:
    """The drop after fine-tuning, learned from rigorous measurements; keeps the record of its own errors.

    A small ensemble of MLPs corrects the cold-start law. It is in use once it has `min_samples` samples and its
    leave-one-out error is clearly below those of the samples' mean and of the cold-start law; until then the law, refitted to
    the same samples, predicts.

    :param learns: False leaves the cold-start law at its prior, whatever is measured: to see what learning is worth
    """

    MEMBERS = 3

    def __init__(self, seed: int, min_samples: int, learns: bool = True) -> None:
        self._seed, self._min_samples, self._learns = seed, min_samples, learns
        self._inputs: list[Floats] = []
        self._drops: list[float] = []
        self._predictions: list[tuple[float, float]] = []
        self._networks: _Networks | None = None
        self._centre, self._spread = np.zeros(len(FEATURES)), np.ones(len(FEATURES))
        self._errors: dict[str, float] = {}
        self._doubt = Doubt.before(_APART)
        self.cold_start = ColdStart()
        self.in_use = False

    def predict(self, features: Floats) -> float:
        """Predicted drop in points; `features` has shape (len(FEATURES),)."""
        return float(self._opinions(features).mean())

    def uncertain(self, features: Floats) -> tuple[float, float]:
        """Predicted drop and its standard deviation, both in points: the spread of the ensemble, and what predictions
        missed so far (see `doubt`), more where nothing like these features was measured."""
        opinions = self._opinions(features)
        drop = float(opinions.mean())
        return drop, float(np.hypot(opinions.std(), self._doubt(features, drop)))

    def _opinions(self, features: Floats) -> Floats:
        """Drops in points: the law's, corrected by each of the networks where they are in use."""
        law = self.cold_start.predict(features)
        if self._networks is None or not self.in_use:
            return np.array([law])
        return law + BELIEVED * max(law, LEAST_PART) * self._networks((features - self._centre) / self._spread)

    def observe(self, features: Floats, drop_points: float, predicted: float | None) -> dict[str, Any]:
        """Adds a measurement, retrains, and returns the record to journal.

        :param predicted: what was predicted for it before it was measured
        """
        if predicted is not None:
            self._predictions.append((predicted, drop_points))
        self.learn(features[None], [drop_points])
        return self.record()

    def learn(self, inputs: Floats, drop_points: Sequence[float]) -> None:
        """Adds measurements and retrains once.

        :param inputs: (samples, features); :param drop_points: (samples,)
        """
        self._inputs += list(inputs)
        self._drops += list(drop_points)
        if not self._learns:
            return
        known, drops = np.array(self._inputs), np.array(self._drops)
        self.cold_start = ColdStart().refitted(known, drops)
        others = 1 - np.eye(len(drops))
        laws = [ColdStart().refitted(known[kept > 0], drops[kept > 0]) for kept in others]
        misses = drops - np.array([law.predict(row) for law, row in zip(laws, known, strict=True)])
        if len(drops) >= self._min_samples:
            misses = self._retrain(known, drops, laws, misses)
        self._doubt = Doubt.after(_APART, known, drops, misses)

    def _retrain(self, inputs: Floats, drops: Floats, laws: Sequence[ColdStart], law_misses: Floats) -> Floats:
        """Trains the ensemble on all samples and, in the same batch, one on all but each sample.

        :param laws: each refitted without the sample; :param law_misses: what they missed of it, points, (samples,)
        :returns: what is missed of each left-out sample by what is in use from now on, (samples,)
        """
        count = len(drops)
        others = 1 - np.eye(count)
        mean_guesses = others @ drops / (count - 1)
        self._centre, self._spread = inputs.mean(0), np.maximum(inputs.std(0), 1e-3)
        rows = (inputs - self._centre) / self._spread
        # Leave-one-out networks learn corrections to a law that has not seen the left-out sample either.
        without = np.array([[law.predict(row) for row in inputs] for law in (self.cold_start, *laws)])
        wholes = np.maximum(without, LEAST_PART)
        parts = (drops - without) / wholes
        masks = np.concatenate([np.ones((self.MEMBERS, count)), np.repeat(others, self.MEMBERS, axis=0)])
        targets = np.repeat(parts, self.MEMBERS, axis=0)
        self._networks = _Networks(self._seed, rows, targets, masks)
        folds = [
            self._networks(row)[self.MEMBERS * (fold + 1) : self.MEMBERS * (fold + 2)].mean() for fold, row in enumerate(rows)
        ]
        corrections = BELIEVED * np.diagonal(wholes[1:]) * np.array(folds)
        misses: Floats = law_misses - corrections
        self._errors = {
            "leave_one_out_error": float(np.abs(misses).mean()),
            "mean_error": float(np.abs(drops - mean_guesses).mean()),
            "cold_start_error": float(np.abs(law_misses).mean()),
        }
        self._networks.keep(self.MEMBERS)
        own = self._errors["leave_one_out_error"]
        self.in_use = own < CLEARLY * min(self._errors["mean_error"], self._errors["cold_start_error"])
        return misses if self.in_use else law_misses

    def record(self) -> dict[str, Any]:
        """Samples, the law, leave-one-out errors in points, and how predictions compared with measurements."""
        predicted, measured = [p for p, _ in self._predictions], [m for _, m in self._predictions]
        return {
            "samples": len(self._drops),
            "in_use": self.in_use,
            "kappa": self.cold_start.kappa,
            "power": self.cold_start.power,
            "offset": self.cold_start.offset,
            "absolute_error": float(np.abs(np.subtract(predicted, measured)).mean()) if predicted else None,
            "rank_correlation": rank_correlation(predicted, measured),
            **self._errors,
        }

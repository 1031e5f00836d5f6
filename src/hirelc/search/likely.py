"""What the loss makes of measured drops: accuracies of a few thousand samples differ by chance where losses do not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hirelc.policy import Measurement

REGION = 5.0  # points: beyond, drops are no curve of the loss, and large enough to be told apart
MEASURED = 0.2  # weight of the measured drop beside the curve: accuracies that losses cannot tell apart still count
LEAST_DROP = 0.1  # points that the mean measurement is taken to lose at least, where it says how much a loss is worth
POWERS = np.linspace(0.4, 1.0, 13)
STRAIGHT, BENT = 1.0, 0.25  # the power before anything is known, and how far off it may well be
NOISE, RELATIVE = 0.2, 0.1  # of a measured drop: points, and part of it


@dataclass(frozen=True)
class Scale:
    """Drops in points as a curve of the excess loss, factor x loss ** power; without losses, as measured.

    :param factor: above 0; None where too little is known
    """

    factor: float | None = None
    power: float = STRAIGHT

    @classmethod
    def of(cls, measurements: Iterable[Measurement]) -> Scale:
        """The curve through the origin that fits what was measured; the fewer, the closer to a line."""
        known = [
            (m.excess_loss, m.drop_points)
            for m in measurements
            if m.failure is None and m.excess_loss is not None and m.drop_points <= REGION
        ]
        if not known:
            return cls()
        losses, drops = np.array(known).T
        if losses.mean() <= 0:
            return cls()
        certain = 1 / (NOISE**2 + (RELATIVE * drops) ** 2)
        curves = _powered(losses, POWERS[:, None])
        means = (certain * curves).sum(1) / certain.sum()
        factors = (certain * curves * drops).sum(1) / (certain * curves**2).sum(1)
        factors = np.where(means > 0, np.maximum(factors, LEAST_DROP / np.maximum(means, 1e-12)), 0.0)
        misses = (certain * (drops - factors[:, None] * curves) ** 2).sum(1) + ((POWERS - STRAIGHT) / BENT) ** 2
        best = int(np.argmin(np.where(factors > 0, misses, np.inf)))
        return cls(float(factors[best]), float(POWERS[best])) if factors[best] > 0 else cls()

    def likely(self, measurement: Measurement) -> float:
        """Points that the measured network loses, in all likelihood."""
        if self.factor is None or measurement.excess_loss is None or measurement.drop_points > REGION:
            return measurement.drop_points
        return MEASURED * measurement.drop_points + (1 - MEASURED) * self.of_loss(measurement.excess_loss)

    def of_loss(self, excess: float) -> float:
        """Points that networks of this excess loss lose in the mean.

        :raises ValueError: too little is known
        """
        if self.factor is None:
            raise ValueError("no measured loss says how much a loss is worth in points")
        return self.factor * float(_powered(np.array(excess), np.array(self.power)))


def _powered(losses: np.ndarray, powers: np.ndarray) -> np.ndarray:
    """Losses below the original's stay below zero."""
    return np.asarray(np.sign(losses) * np.abs(losses) ** powers)

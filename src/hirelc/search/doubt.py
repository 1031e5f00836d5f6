"""How far a predicted drop may be off: what predictions missed so far, and more where nothing like it was measured.

A measurement is one of a few thousand samples and of one fine-tune, so it is never exact, and larger drops are less
certain than small ones. Both are known before anything is measured; misses then say by how much they are off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NOISE, RELATIVE = 0.25, 0.4  # deviation of a drop near zero, in points; of a large one, as a part of it
TRUST = 2.0  # measurements that this is worth


@dataclass(frozen=True)
class Doubt:
    """Standard deviations of predicted drops. Without samples, those of the prior.

    :param scales: what difference in each feature makes a policy a different one, (features,)
    :param centre: mean of the measured features, (features,)
    :param covariance: of a linear model's weights, offset first, given what was measured, (1 + features, 1 + features)
    :param factor: how much wider the misses were spread than expected
    """

    scales: Floats
    centre: Floats
    covariance: Floats
    factor: float = 1.0

    @classmethod
    def before(cls, scales: Floats) -> Doubt:
        return cls(scales, np.zeros(len(scales)), np.diag([1.0] + [0.0] * len(scales)))

    @classmethod
    def after(cls, scales: Floats, inputs: Floats, drops: Floats, misses: Floats) -> Doubt:
        """
        :param inputs: features of what was measured, (samples, features), at least one
        :param drops: points, (samples,)
        :param misses: drops less what the other samples made expect of each, points, (samples,)
        """
        centre: Floats = np.asarray(inputs.mean(0), np.float64)
        rows = _rows((inputs - centre) / scales)
        covariance = np.linalg.inv(np.eye(rows.shape[1]) + rows.T @ rows)
        seen = np.einsum("ij,jk,ik->i", rows, covariance, rows)
        unseen = seen / (1 - seen)  # as it was without the sample itself
        expected = _deviation(drops - misses) ** 2 * (1 + unseen)
        factor = ((TRUST + float((misses**2 / expected).sum())) / (TRUST + len(drops))) ** 0.5
        return cls(scales, centre, np.asarray(covariance, np.float64), float(factor))

    def __call__(self, features: Floats, drop_points: float) -> float:
        """In points, above 0.

        :param drop_points: what is predicted for these features
        """
        row = _rows(((features - self.centre) / self.scales)[None])[0]
        novelty = float(row @ self.covariance @ row)
        return float(self.factor * _deviation(np.array(drop_points)) * (1 + novelty) ** 0.5)


def _rows(standardised: Floats) -> Floats:
    return np.concatenate([np.ones((len(standardised), 1)), standardised], axis=1)


def _deviation(drops: Floats) -> Floats:
    """What is expected of any prediction, where others like it were measured."""
    return np.asarray(np.hypot(NOISE, RELATIVE * np.maximum(drops, 0.0)))

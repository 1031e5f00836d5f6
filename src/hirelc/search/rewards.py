"""Rewards of both levels as pure functions. Source: ALGORITHM.md, "Two levels" (arXiv 2606.26002).

Deviations from the paper, each with its reason:

- The accuracy term is strictly decreasing where the paper has a staircase: a step has no slope, and a reward
  that is flat where accuracy is not teaches nothing.
- Exceeding the budget costs in proportion to the *relative* excess. The paper's compliance term alone is
  nearly flat for the small targets of a 20x goal: twice a target of 0.03 would cost a quarter of it.
- The stability term is squashed into (-1, 0], so that exploration itself is not what is punished.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, sqrt, tanh

import numpy as np
from numpy.typing import NDArray

COMPLIANCE_REWARD, COMPLIANCE_SLOPE = 20.0, 10.0
EXCESS_PENALTY = 40.0
SENSITIVITY_PENALTY = 12.0
# What the predicted drop says comes first: at their full weight these two took half of what large blocks need, and
# tripled the distortion (the ResNet-20 at 55x).
SENSITIVITY_SAY, FEEDBACK_SAY = 0.1, 0.3
STABILITY_WINDOW = 5
# Environments divide by this: the value network learns unit-sized rewards, and its gradient does not
# use up the norm at which stable-baselines3 clips policy and value gradients together.
REWARD_SCALE = 20.0


@dataclass(frozen=True)
class Weights:
    """What one member of an ensemble cares for (the paper's alpha, beta, gamma)."""

    accuracy: float
    compression: float
    stability: float


LOW_LEVEL_WEIGHTS = (Weights(30, 1.5, 1), Weights(30, 5, 1), Weights(30, 8, 1))
BALANCED = LOW_LEVEL_WEIGHTS[1]
HIGH_LEVEL_WEIGHTS = (Weights(30, 6, 1), Weights(30, 10, 1), Weights(30, 4, 1))


def accuracy_term(drop_points: float, allowed_points: float) -> float:
    """Strictly decreasing in the drop, below 1; 0.9 at no drop, 0.75 at the allowed one, steeper beyond.

    :param drop_points: predicted drop; negative for a gain
    :param allowed_points: the drop that the budget grants, above 0
    """
    relative = drop_points / allowed_points
    if relative < 0:
        return 0.9 - 0.1 * relative / (1 - relative)
    if relative <= 1:
        return 0.9 - 0.15 * relative
    if relative <= 4:
        return 0.75 - 0.5 * (relative - 1)
    return -0.75 - 0.1 * (relative - 4)


def compliance_term(size_fraction: float, target_fraction: float) -> float:
    """The paper's bell around the target, less what an excess over it costs."""
    excess = max(0.0, size_fraction / target_fraction - 1)
    bell = COMPLIANCE_REWARD * exp(-COMPLIANCE_SLOPE * abs(size_fraction - target_fraction))
    return bell - EXCESS_PENALTY * min(excess, 1.0) - min(max(excess - 1.0, 0.0), 8.0)


def stability_term(recent: Sequence[float]) -> float:
    """Minus the spread of the last rewards, in (-1, 0]."""
    count = len(recent)
    if count < 2:
        return 0.0
    mean = sum(recent) / count
    spread = sqrt(sum((reward - mean) ** 2 for reward in recent) / count)
    return -spread / (1 + spread)


def block_reward(
    *,
    drop_points: float,
    allowed_points: float,
    size_fraction: float,
    target_fraction: float,
    sensitivity: float,
    recent: Sequence[float],
    weights: Weights,
) -> float:
    """Reward of a low-level agent.

    :param recent: rewards of the last `STABILITY_WINDOW` steps
    """
    return (
        weights.accuracy * accuracy_term(drop_points, allowed_points)
        + weights.compression * (1 - size_fraction)
        + compliance_term(size_fraction, target_fraction)
        - SENSITIVITY_PENALTY * sensitivity * (1 - size_fraction)
        + weights.stability * stability_term(recent)
    )


def sensitivity_term(granted: NDArray[np.float64], around: NDArray[np.float64], sensitivity: NDArray[np.float64]) -> float:
    """Positive when sensitive blocks get more than the start gives them, and insensitive ones less. Arrays: (blocks,).

    :param around: size fractions of the start
    """
    return float(np.mean((2 * sensitivity - 1) * (granted / around - 1)))


def severity(drop_points: float, allowed_points: float) -> float:
    """How far a measured drop misses the allowed one: 1 far over, 0 just met, -1 with much head-room."""
    return tanh((drop_points - allowed_points) / max(allowed_points, 0.1))


def feedback_term(
    last_severity: float,
    granted: NDArray[np.float64],
    last_granted: NDArray[np.float64],
    goal: float,
    exposure: NDArray[np.float64],
) -> float:
    """After an over-drop, shrinking is punished; after a measurement with head-room, it is rewarded.

    :param granted: fractions now, (blocks,); :param last_granted: fractions of the measured policy, (blocks,)
    :param exposure: weight of each block, (blocks,), summing to 1: share times sensitivity, because growth
        where accuracy is at stake is the answer to an over-drop
    """
    return last_severity * float(exposure @ (granted - last_granted)) / goal


def network_reward(
    *, accuracy: float, sensitivity: float, feedback: float, gap: float, spread: float, weights: Weights
) -> float:
    """Reward of a high-level agent.

    `weights.accuracy` multiplies all that concerns accuracy (the accuracy term of the drop predicted for the
    budgets, the sensitivity-aware term, the feedback), `weights.compression` the gap to the global size goal,
    `weights.stability` the spread of the budgets.

    :param gap: |weight-weighted mean fraction before balancing / goal - 1|
    :param spread: standard deviation of the granted fractions / goal
    """
    concern = accuracy + SENSITIVITY_SAY * sensitivity + FEEDBACK_SAY * feedback
    return weights.accuracy * concern - weights.compression * gap - weights.stability * spread

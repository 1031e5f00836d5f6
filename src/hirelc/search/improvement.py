"""What a measurement may be expected to bring, given a prediction and its doubt."""

from __future__ import annotations

from math import erf, exp, inf, pi, sqrt


def expected_improvement(least: float, mean: float, deviation: float) -> float:
    """Points by which a policy may be expected to lose less than the best so far (Jones et al. 1998, for a normal prediction).

    :param least: lowest drop measured so far; infinity before the first, when the lowest prediction promises most
    :param mean: predicted drop, :param deviation: its standard deviation, 0 or more; all in points
    """
    if least == inf:
        return -mean
    ahead = least - mean
    if deviation <= 0:
        return max(ahead, 0.0)
    at = ahead / deviation
    return ahead * 0.5 * (1 + erf(at / sqrt(2))) + deviation * exp(-at * at / 2) / sqrt(2 * pi)

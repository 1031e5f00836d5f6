"""How an ensemble becomes one decision: weighted mean of ordinals, weighted majority of categories.

Every ordinal here ascends towards safety (more bits, more channels, a larger size level), so that rounding
half up is a tie decided for the safer side. A category is never averaged: that would elect options which no
member chose.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from math import floor
from typing import TypeVar

import numpy as np

from hirelc.policy import Granularity, NumberType, Strategy
from hirelc.search.rewards import severity

Option = TypeVar("Option", bound=StrEnum)

# Safest first. INT: evenly spaced, computed natively everywhere. LEARNED: its step is corrected by training;
# LOG: coarsest at large weights. QUANTIZATION: removes nothing for good; PRUNING: removes most.
NUMBER_TYPE_SAFETY = (NumberType.INT, NumberType.FLOAT)
GRANULARITY_SAFETY = (Granularity.LEARNED, Granularity.PER_CHANNEL, Granularity.UNIFORM, Granularity.LOG)
STRATEGY_SAFETY = (Strategy.QUANTIZATION, Strategy.AUTO, Strategy.PRUNING)

ALIKE = 0.01  # of what the vote wanted: members that differ less agree
# A tie up to rounding of the weights' sums is a tie.
_TIE = 1e-9


def vote_ordinal(votes: Sequence[int], weights: Sequence[float]) -> int:
    """Weighted mean, rounded half up."""
    mean = sum(vote * weight for vote, weight in zip(votes, weights, strict=True)) / sum(weights)
    return floor(mean + 0.5 + _TIE)


def vote_category(votes: Sequence[Option], weights: Sequence[float], safety: Sequence[Option]) -> Option:
    """Weighted majority; a tie goes to the option that stands first in `safety`."""
    tally = {option: 0.0 for option in safety if option in votes}
    for vote, weight in zip(votes, weights, strict=True):
        tally[vote] += weight
    most = max(tally.values())
    return next(option for option, total in tally.items() if total >= most - _TIE)


def member_losses(
    drops: Sequence[float], sizes: Sequence[float], voted_drop: float, voted_size: float, measured_drop: float, allowed: float
) -> list[float]:
    """What a rigorous measurement says of each member's own wish.

    After an over-drop the members lose that wanted to hit harder than the vote did; after a measurement with
    head-room those that wanted to spend more bytes.

    :param drops: predicted drop of each member's own action, points
    :param sizes: size of each member's own action, any one unit
    """
    miss = severity(measured_drop, allowed)
    wanted, voted = (drops, voted_drop) if miss > 0 else (sizes, voted_size)
    apart = [float(wish - voted) for wish in wanted]
    widest = max(ALIKE * abs(voted), *map(abs, apart))
    return [float(np.tanh(abs(miss) * difference / widest)) if widest else 0.0 for difference in apart]


class VoteWeights:
    """The say of each member: equal at first, then by its record (exponential weights, Littlestone & Warmuth).

    :param rate: how fast a record changes the say
    :param floor: lowest say as a part of an equal one; a member once wrong may recover
    """

    def __init__(self, members: int, rate: float = 0.5, floor: float = 0.2) -> None:
        self._logits = np.zeros(members)
        self._rate, self._floor = rate, floor

    @property
    def values(self) -> list[float]:
        """Weights of the members, summing to 1."""
        say = np.exp(self._logits - self._logits.max())
        return [float(weight) for weight in (1 - self._floor) * say / say.sum() + self._floor / len(say)]

    def update(self, losses: Sequence[float]) -> None:
        """Moves say from members with a high loss to those with a low one; a loss lies in [-1, 1]."""
        self._logits -= self._rate * np.asarray(losses)
        self._logits -= self._logits.mean()

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hirelc.policy import Granularity, NumberType, Strategy
from hirelc.search.voting import (
    GRANULARITY_SAFETY,
    NUMBER_TYPE_SAFETY,
    STRATEGY_SAFETY,
    VoteWeights,
    member_losses,
    vote_category,
    vote_ordinal,
)

EQUAL = [1 / 3] * 3
say = st.lists(st.floats(0.01, 1), min_size=3, max_size=3)


@given(st.lists(st.sampled_from(list(Granularity)), min_size=3, max_size=3), say)
def test_no_category_is_elected_that_nobody_chose(votes: list[Granularity], weights: list[float]) -> None:
    assert vote_category(votes, weights, GRANULARITY_SAFETY) in votes


@given(st.lists(st.integers(0, 14), min_size=3, max_size=3), say)
def test_ordinals_stay_between_the_votes(votes: list[int], weights: list[float]) -> None:
    assert min(votes) <= vote_ordinal(votes, weights) <= max(votes)


def test_ties_go_to_the_safer() -> None:
    assert vote_category(list(Granularity)[:3], EQUAL, GRANULARITY_SAFETY) is Granularity.PER_CHANNEL
    assert vote_category([NumberType.FLOAT, NumberType.INT], [0.5, 0.5], NUMBER_TYPE_SAFETY) is NumberType.INT
    assert vote_category(list(Strategy), EQUAL, STRATEGY_SAFETY) is Strategy.QUANTIZATION
    assert vote_ordinal([3, 4], [0.5, 0.5]) == 4  # ordinals ascend towards safety


def test_majority_and_weights_count() -> None:
    votes = [Strategy.PRUNING, Strategy.AUTO, Strategy.PRUNING]
    assert vote_category(votes, EQUAL, STRATEGY_SAFETY) is Strategy.PRUNING
    assert vote_category(votes, [0.2, 0.6, 0.2], STRATEGY_SAFETY) is Strategy.AUTO


def test_every_option_has_a_place_in_the_order_of_safety() -> None:
    assert set(NUMBER_TYPE_SAFETY) == set(NumberType)
    assert set(GRANULARITY_SAFETY) == set(Granularity)
    assert set(STRATEGY_SAFETY) == set(Strategy)


def test_vote_weights_follow_the_record() -> None:
    weights = VoteWeights(3)
    assert weights.values == pytest.approx(EQUAL)
    for _ in range(20):
        # far over the allowed drop; member 1 wanted to hit harder still, member 2 less
        weights.update(member_losses([1.0, 2.0, 0.5], [9, 8, 10], 1.0, 9, measured_drop=3.0, allowed=0.5))
    first, harder, gentler = weights.values
    assert gentler > first > harder > 0.05
    assert sum(weights.values) == pytest.approx(1)


def test_head_room_speaks_against_those_who_wanted_more_bytes() -> None:
    spender, saver = member_losses([1.0, 1.0], [12, 8], 1.0, 10, measured_drop=0.0, allowed=0.5)
    assert spender > 0 > saver

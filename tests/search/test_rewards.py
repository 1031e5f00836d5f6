from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hirelc.search.rewards import (
    HIGH_LEVEL_WEIGHTS,
    LOW_LEVEL_WEIGHTS,
    accuracy_term,
    block_reward,
    network_reward,
    severity,
    stability_term,
)

drops = st.floats(-20, 60)


@given(drops, st.floats(0.05, 5), st.floats(0.01, 10))
def test_accuracy_term_falls_wherever_the_drop_grows(drop: float, allowed: float, more: float) -> None:
    assert accuracy_term(drop + more, allowed) < accuracy_term(drop, allowed) <= 1


def reward(fraction: float, drop: float = 1.0, target: float = 0.04, member: int = 1) -> float:
    return block_reward(
        drop_points=drop,
        allowed_points=1.0,
        size_fraction=fraction,
        target_fraction=target,
        sensitivity=0.5,
        recent=(),
        weights=LOW_LEVEL_WEIGHTS[member],
    )


@given(st.floats(0.015, 0.3), st.integers(0, 2))
def test_over_budget_is_worse_than_compliant(target: float, member: int) -> None:
    """Even when the quarter more bytes would buy back the whole drop."""
    assert reward(1.25 * target, 0.0, target, member) < reward(target, 1.0, target, member)
    assert reward(2 * target, 0.0, target, member) < reward(1.25 * target, 0.0, target, member)


def test_stability_is_bounded() -> None:
    assert stability_term([5.0]) == stability_term([3.0] * 5) == 0
    assert -1 < stability_term([-100.0, 100.0]) < stability_term([1.0, 1.1]) < 0


def test_members_differ_in_what_they_are_paid_for() -> None:
    own = [reward(0.04, member=index) for index in range(3)]
    assert own[0] < own[1] < own[2]  # bytes saved count more and more
    gaps = [
        network_reward(accuracy=0, sensitivity=0, feedback=0, gap=1.0, spread=0, weights=weights)
        for weights in HIGH_LEVEL_WEIGHTS
    ]
    assert gaps == [-6, -10, -4]


def test_severity_has_the_sign_of_the_miss() -> None:
    assert severity(2.0, 0.5) > 0 == severity(0.5, 0.5) > severity(0.1, 0.5)

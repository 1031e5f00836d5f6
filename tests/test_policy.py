from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hirelc.errors import PolicyError
from hirelc.policy import Budget, Choice, Goal, Granularity, Limits, Measurement, NumberType, Policy, Strategy

choices = st.builds(
    Choice,
    bits=st.integers(2, 8),
    keep_ratio=st.floats(0, 1, exclude_min=True),
    number_type=st.sampled_from(NumberType),
    granularity=st.sampled_from(Granularity),
)
policies = st.dictionaries(st.text(), choices).map(Policy.of)


@given(policies)
def test_a_policy_survives_json(policy: Policy) -> None:
    again = Policy.from_json(json.loads(json.dumps(policy.to_json())))
    assert again == policy and hash(again) == hash(policy) and again.digest == policy.digest
    assert list(again) == list(policy)


@given(policies, choices)
def test_the_digest_tells_policies_apart(policy: Policy, choice: Choice) -> None:
    for name in list(policy)[:1]:
        changed = policy.updated({name: choice})
        assert (changed == policy) == (choice == policy[name]) == (changed.digest == policy.digest)


def test_a_policy_is_a_mapping() -> None:
    policy = Policy.of({"a": Choice(bits=2), "b": Choice()})
    assert policy["a"].bits == 2 and len(policy) == 2 and "b" in policy and dict(policy)["b"] == Choice()
    with pytest.raises(PolicyError, match="no kernel 'c'"):
        policy.updated({"c": Choice()})
    with pytest.raises(PolicyError, match="twice"):
        Policy((("a", Choice()), ("a", Choice())))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bits": 1}, "bits"),
        ({"bits": 9}, "bits"),
        ({"bits": 4.0}, "bits"),
        ({"bits": True}, "bits"),
        ({"keep_ratio": 0}, "keep_ratio"),
        ({"keep_ratio": 1.5}, "keep_ratio"),
        ({"keep_ratio": float("nan")}, "keep_ratio"),
        ({"keep_ratio": "half"}, "keep_ratio"),
        ({"number_type": "complex"}, "complex"),
        ({"granularity": "per_row"}, "per_row"),
    ],
)
def test_choices_that_cannot_be(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        Choice(**fields)


def test_policy_json_is_strict() -> None:
    good = Policy.of({"a": Choice()}).to_json()
    with pytest.raises(PolicyError, match="version"):
        Policy.from_json({**good, "version": 99})
    with pytest.raises(PolicyError, match="keys"):
        Policy.from_json({**good, "more": 1})
    with pytest.raises(PolicyError, match="unknown or missing key"):
        Policy.from_json({**good, "choices": {"a": {"bits": 4, "colour": "red"}}})


def test_budget_bounds() -> None:
    assert Budget(0.1, 0.5, 2, Strategy.AUTO, 1.0).strategy is Strategy.AUTO
    for fields in ((0, 0.5, 2), (1.1, 0.5, 2), (0.1, 1, 2), (0.1, -0.1, 2), (0.1, 0.5, -1)):
        with pytest.raises(PolicyError):
            Budget(*fields, Strategy.AUTO, 1.0)


def test_goal_limits() -> None:
    assert Goal(ratio=10).byte_limit(1005) == 100
    assert Goal(ratio=10, max_bytes=90).byte_limit(1005) == 90
    assert Goal(max_drop=0.5).byte_limit(1005) is None
    for fields in (
        {},
        {"ratio": 1},
        {"ratio": float("nan")},
        {"max_drop": -1},
        {"max_bytes": 0},
        {"max_macs": 0},
        {"max_macs": float("inf")},
        {"max_latency_ms": -1},
    ):
        with pytest.raises(PolicyError):
            Goal(**fields)  # type: ignore[arg-type]


def test_all_limits_of_a_goal_hold_together() -> None:
    limits = Goal(ratio=10, max_macs=1e6, max_latency_ms=2.0, max_drop=1.0).limits(1000)
    assert limits == Limits(100, 1e6, 2.0) and limits and not Limits()
    assert limits.excess(100, 1_000_000, 2.0) == {}
    assert limits.excess(150, 2_000_000, 1.0) == {"size_bytes": 0.5, "macs": 1.0}
    assert Limits(macs=5).excess(10**9, 5) == {}
    with pytest.raises(PolicyError, match="not measured"):
        limits.excess(1, 1)
    assert Goal(max_macs=1).leaves_open and not Goal(max_macs=1, max_drop=1).leaves_open


def test_goals_of_older_runs_stay_readable() -> None:
    assert Goal.from_json({"ratio": 12.0, "max_drop": None, "max_bytes": None}) == Goal(ratio=12)
    goal = Goal(max_bytes=5, max_macs=7.5, max_latency_ms=0.5)
    assert Goal.from_json(json.loads(json.dumps(asdict(goal)))) == goal
    with pytest.raises(PolicyError, match="no limit 'max_watts'"):
        Goal.from_json({"ratio": 12.0, "max_watts": 3})


def test_measurement_names_its_split() -> None:
    measured = Measurement(10, 90.0, 0.5, 100, "test", extra={"loss": 1.0})
    assert json.loads(json.dumps(measured.to_json()))["extra"] == {"loss": 1.0}
    with pytest.raises(PolicyError, match="unknown split 'train'"):
        Measurement(10, 90.0, 0.5, 100, "train")

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hirelc.errors import PolicyError
from hirelc.policy import Budget, Choice, Goal, Granularity, Measurement, NumberType, Policy, Strategy

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
    for fields in ({}, {"ratio": 1}, {"ratio": float("nan")}, {"max_drop": -1}, {"max_bytes": 0}):
        with pytest.raises(PolicyError):
            Goal(**fields)  # type: ignore[arg-type]


def test_measurement_names_its_split() -> None:
    measured = Measurement(10, 90.0, 0.5, 100, "test", extra={"loss": 1.0})
    assert json.loads(json.dumps(measured.to_json()))["extra"] == {"loss": 1.0}
    with pytest.raises(PolicyError, match="unknown split 'train'"):
        Measurement(10, 90.0, 0.5, 100, "train")

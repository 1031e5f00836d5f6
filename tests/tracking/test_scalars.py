from __future__ import annotations

from collections import defaultdict
from typing import Any

from hirelc.tracking.scalars import Scalar, Scalars
from live.events import measured, measurement, whole_run

AGENT = {"algorithm": "PPO", "steps": 64, "reward": 2.0, "random_reward": 1.0, "entropy": 0.5}


def told(events: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    scalars, found = Scalars(), defaultdict(list)
    for event in events:
        for scalar in scalars.of(event):
            found[scalar.name].append((scalar.step, scalar.value))
    return found


def test_a_run_in_numbers() -> None:
    found = told(whole_run())
    assert found["measured/bytes"] == [(1, 99_000), (2, 98_000), (4, 97_000)]  # the third was rejected
    assert found["measured/drop_points"] == [(1, 1.2), (2, 0.9), (4, 0.4)]
    assert found["measured/ratio"][0] == (1, 1_000_000 / 99_000)
    assert found["predicted/drop_points"] == [(1, 0.5), (2, 0.5), (4, 0.5)]
    assert found["accuracy/original"] == [(0, 90.0)] and found["final/bytes"] == [(0, 97_000)]
    assert found["test/compressed"] == [(0, 88.9)]


def test_what_agents_learn_and_curves() -> None:
    event = measurement(1, "vote", measured(100, 0.5))
    event["decisions"] = {
        "high_level": {"agents": [AGENT, {**AGENT, "reward": 4.0}]},
        "low_level": [{"agents": [AGENT]}, {"agents": [{**AGENT, "entropy": 0.25}]}],
    }
    event["learned"] = {
        "absolute_error": 0.2,
        "surrogate": {"samples": 2, "in_use": False, "rank_correlation": None, "absolute_error": 0.1},
    }
    event["trained"] = {"images": 640, "scores": [[0, 50.0], [320, 60.0], [640, None]]}
    found = told([event])
    assert found["agents/network reward"] == [(2, 3.0)] and found["agents/network random_reward"] == [(2, 1.0)]
    assert found["agents/blocks entropy"] == [(2, 0.375)]
    assert found["predicted/absolute_error"] == [(1, 0.2)] and found["surrogate/absolute_error"] == [(1, 0.1)]
    assert found["fine-tune/candidate 1"] == [(0, 50.0), (320, 60.0)]
    assert "surrogate/rank_correlation" not in found


def test_other_events_and_missing_fields_do_no_harm() -> None:
    assert told([{"event": "start"}, {"event": "note"}, {"event": "final"}, {"event": "test"}, {"event": "baseline"}]) == {}
    assert Scalars().of({"event": "baseline", "accuracy": 1}) == [Scalar("accuracy/original", 1.0, 0)]

"""The best policy so far is trained on from its own weights, each time more gently, and nothing is lost by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hirelc.candidates import Bench
from hirelc.policy import Goal
from hirelc.store import read_journal
from test_pipeline import CONFIG, best_of, compress


def test_an_incumbent_is_trained_on_gently_from_its_best_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of other policies are made worse, so that the first one wins every cycle."""
    calls: list[tuple[str, Any, float]] = []
    measure = Bench.measure

    def spoiled(self: Bench, policy: Any, *args: Any, **settings: Any) -> Any:
        measurement, candidate = measure(self, policy, *args, **settings)
        if settings["fidelity"] == "full":
            calls.append((policy.digest, settings["start"], settings["rate_factor"]))
        if calls and policy.digest != calls[0][0]:
            measurement = replace(measurement, drop_points=50.0, excess_loss=10.0)
        return measurement, candidate

    monkeypatch.setattr(Bench, "measure", spoiled)
    config = replace(CONFIG, search=replace(CONFIG.search, cycles=3))
    result = compress(tmp_path / "a", goal=Goal(ratio=6.0), config=config)
    digests, starts, rates = zip(*calls, strict=True)
    assert set(digests) == {digests[0]} and rates == (1.0, 0.6, 0.6**2)
    assert starts[0] is None and all(start.trained.images > 0 for start in starts[1:])
    measured = [
        e for e in read_journal(result.folder) if e["event"] == "measurement" and e["measurement"]["fidelity"] == "full"
    ]
    assert [event["origin"] for event in measured] == ["warm start", "incumbent", "incumbent"]


def test_an_exploring_cycle_trains_the_wish_that_looks_best_without_training(tmp_path: Path) -> None:
    goal = Goal(ratio=6.0)
    result = compress(tmp_path / "a", goal=goal)
    found = [e for e in read_journal(result.folder) if e["event"] == "measurement" and e["cycle"] == 0]
    _, *calibrated, full = found
    assert [event["measurement"]["fidelity"] for event in found] == ["full", *["calibrated"] * len(calibrated), "full"]
    assert {event["origin"] for event in calibrated} == {"vote", "member"}
    assert full["policy"] == best_of(result, goal, calibrated, full)

"""The best policy so far is trained on from its own weights, each time more gently, and nothing is lost by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hirelc.candidates import Bench
from hirelc.policy import Goal
from hirelc.searching import ONWARD
from hirelc.store import read_journal
from test_pipeline import CONFIG, compress


@pytest.mark.parametrize("long", [True, False])
def test_an_incumbent_is_trained_on_from_its_best_weights_and_gently_where_that_is_long(
    long: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    monkeypatch.setattr("hirelc.searching.LONG", 1 if long else 1000)
    config = replace(CONFIG, search=replace(CONFIG.search, cycles=3))
    result = compress(tmp_path / "a", goal=Goal(ratio=6.0), config=config)
    digests, starts, rates = zip(*calls, strict=True)
    assert set(digests) == {digests[0]} and rates == pytest.approx([(ONWARD if long else 1) ** n for n in range(4)])
    assert starts[0] is None and all(start.trained.images > 0 for start in starts[1:])
    measured = [
        e for e in read_journal(result.folder) if e["event"] == "measurement" and e["measurement"]["fidelity"] == "full"
    ]
    assert [event["origin"] for event in measured] == ["warm start", *["incumbent"] * 3]


def test_a_wish_of_an_exploring_cycle_has_to_be_as_good_as_the_best_so_far(tmp_path: Path) -> None:
    result = compress(tmp_path / "a", goal=Goal(ratio=6.0))
    found = [e for e in read_journal(result.folder) if e["event"] == "measurement" and e["cycle"] == 0]
    first, *calibrated, full = found
    assert [event["measurement"]["fidelity"] for event in found] == ["full", *["calibrated"] * len(calibrated), "full"]
    assert {event["origin"] for event in calibrated} == {"vote", "member"}
    first_drop, least = first["measurement"]["likely_drop"], min(e["measurement"]["likely_drop"] for e in calibrated)
    assert (full["origin"] == "incumbent") == (least > first_drop), "sizes are alike here: drops decide"

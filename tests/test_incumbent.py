"""The best policy so far is trained on from its own weights, each time more gently, and nothing is lost by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hirelc.candidates import Bench
from hirelc.store import read_journal
from test_pipeline import compress


def test_an_incumbent_is_trained_on_gently_from_its_best_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of other policies are made worse, so that the first one wins every cycle."""
    calls: list[tuple[str, Any, float]] = []
    measure = Bench.measure

    def spoiled(self: Bench, policy: Any, *args: Any, **settings: Any) -> Any:
        measurement, candidate = measure(self, policy, *args, **settings)
        if settings["fidelity"] == "full":
            calls.append((policy.digest, settings["start"], settings["rate_factor"]))
        elif calls and policy.digest != calls[0][0]:
            measurement = replace(measurement, drop_points=50.0, excess_loss=10.0)
        return measurement, candidate

    monkeypatch.setattr(Bench, "measure", spoiled)
    result = compress(tmp_path / "a")
    assert len({digest for digest, _, _ in calls}) == 1 and [rate for _, _, rate in calls] == [1.0, 0.6, 0.6**2]
    starts = [start for _, start, _ in calls]
    assert starts[0] is None and all(start is not None and start.trained.images > 0 for start in starts[1:])
    measured = [
        e for e in read_journal(result.folder) if e["event"] == "measurement" and e["measurement"]["fidelity"] == "full"
    ]
    assert [event["origin"] for event in measured] == ["warm start", "incumbent", "incumbent"]

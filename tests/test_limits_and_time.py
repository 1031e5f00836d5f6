"""Whole runs on a tiny network with limits on MACs and latency, and in a limited time."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hirelc
from hirelc import cost, pacing, pipeline
from hirelc.config import Config, SearchConfig, TrainConfig
from hirelc.errors import RunError
from hirelc.latencies import TABLE_FILE
from hirelc.measure.latency import LatencyTable
from hirelc.network.trace import trace
from hirelc.policy import Goal
from hirelc.progress import Silent
from hirelc.results import Result
from hirelc.store import read_journal
from hirelc.timing import Pace, Speeds, TimeBudget
from hirelc.words import result_words
from measure.small import Tiny, data, samples, tiny

CONFIG = Config(
    fisher_samples=32,
    calibration_samples=32,
    search=SearchConfig(cycles=1, low_level_steps=64, high_level_steps=64, surrogate_min_samples=2, strategy="random"),
    train=TrainConfig(images=1000, batch_size=32, precision="fp32", evaluations=2, control=False),
)
FULL = cost.macs(trace(tiny(), samples(2, 0)[0], None))


def compress(out: Path, goal: Goal, config: Config = CONFIG, **changes: Any) -> Result:
    return pipeline.compress(tiny(), data(), data(96, 1), goal, out, config=config, reporter=Silent(), **changes)


def events(result: Result, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_journal(result.folder) if event["event"] == kind]


def macs_of(network: Any) -> int:
    return sum(m.weight.numel() for m in network.modules() if hasattr(m, "weight") and m.weight.ndim == 2)


def test_half_the_macs_are_delivered_by_channels(tmp_path: Path) -> None:
    result = compress(tmp_path / "run", Goal(ratio=3, max_macs=0.7 * FULL))
    assert result.shortfall is None and result.compressed.macs <= 0.7 * FULL
    assert result.compressed.ratio >= 3
    assert macs_of(hirelc.load(result.path, Tiny)) == result.compressed.macs  # what is loaded is slim
    assert all(event["measurement"]["macs"] <= 0.7 * FULL for event in events(result, "measurement"))
    assert Goal.from_json(json.loads((result.folder / "result.json").read_text())["goal"]) == result.goal
    assert "MACs: met" in result_words(result)


@pytest.mark.slow
def test_macs_alone_leave_the_file_at_an_eighth_or_what_was_expected(tmp_path: Path) -> None:
    result = compress(tmp_path / "run", Goal(max_macs=0.8 * FULL))
    assert result.shortfall is None and result.compressed.macs <= 0.8 * FULL


def test_macs_out_of_reach_deliver_the_closest_and_name_the_setting(tmp_path: Path) -> None:
    result = compress(tmp_path / "run", Goal(ratio=3, max_macs=10))
    assert result.shortfall is not None and "--min-keep 0.5" in result.shortfall and "MACs" in result.shortfall
    assert macs_of(hirelc.load(result.path, Tiny)) == result.compressed.macs < FULL
    assert result.compressed.ratio >= 3


def test_a_latency_is_limited_by_a_table_that_another_run_can_use(tmp_path: Path) -> None:
    first = compress(tmp_path / "first", Goal(ratio=3, max_latency_ms=1e3))
    (table,) = events(first, "latency_table")
    assert table["source"] == "measured" and table["original_ms"] > 0 and first.shortfall is None
    row = first.compressed
    assert row.latency_ms is not None and row.predicted_ms is not None and first.original.latency_ms is not None
    assert "predicted" in result_words(first) and "at most 1000 ms a call" in result_words(first)
    settings = replace(CONFIG, latency_table=str(first.folder / TABLE_FILE))
    again = compress(tmp_path / "again", Goal(ratio=3, max_latency_ms=1e3), settings)
    assert events(again, "latency_table")[0]["source"] == "another run"
    assert again.policy == first.policy and again.compressed.predicted_ms == row.predicted_ms
    assert (again.folder / TABLE_FILE).read_bytes() == (first.folder / TABLE_FILE).read_bytes()
    with pytest.raises(RunError, match="--latency-batch 1"):
        compress(tmp_path / "other", Goal(max_latency_ms=1), replace(settings, latency_batch=2))


@pytest.mark.slow
def test_a_latency_out_of_reach_is_said(tmp_path: Path) -> None:
    result = compress(tmp_path / "run", Goal(ratio=3, max_latency_ms=1e-6))
    assert (
        result.shortfall is not None and "ms where 1e-06 were allowed" in result.shortfall and "predicted" in result.shortfall
    )
    LatencyTable.loads((result.folder / TABLE_FILE).read_text())


def test_a_time_plans_images_and_cycles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = Speeds(image=0.02, control_image=0.0, measurement=0.2, ending=0.3, agent_step=0.0005)
    monkeypatch.setattr(pacing, "measure_speeds", lambda *_: speeds)
    monkeypatch.setattr(Pace, "observe", lambda *_: None)  # so that the plan is what happens
    clock = itertools.count()
    config = replace(CONFIG, train=replace(CONFIG.train, images=TrainConfig.images))
    result = compress(tmp_path / "run", Goal(ratio=3), config, time=TimeBudget(30, lambda: 0.5 * next(clock)))
    (plan,) = events(result, "time_plan")
    kept = Config.from_json(json.loads((result.folder / "config.json").read_text()))
    assert kept.train.seconds == 30 and kept.train.images == plan["images"] != TrainConfig.images
    assert kept.search.cycles == plan["search"]["cycles"] == 1
    (final,) = events(result, "time_final")
    assert final["images"] % 32 == 0 and final["left"] < 30
    assert 0 < events(result, "final")[0]["trained"]["images"] <= final["images"] < 2000


def test_a_time_too_short_says_how_much_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "measure_speeds", lambda *_: Speeds(1.0, 1.0, 10.0, 10.0, 0.1))
    config = replace(CONFIG, train=replace(CONFIG.train, images=TrainConfig.images))
    with pytest.raises(RunError, match=r"30s is too short.*give at least --time"):
        compress(tmp_path / "run", Goal(ratio=3), config, time="30s")


def test_images_and_time_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="exclude each other"):
        compress(tmp_path / "run", Goal(ratio=3), time="1m")
    assert not (tmp_path / "run").exists()
    with pytest.raises(RunError, match="nothing is trained"):
        Config(calibrate_only=True, train=TrainConfig(seconds=60))


@pytest.mark.slow
def test_a_run_ends_in_its_time(tmp_path: Path) -> None:
    """Everything measured for real: speeds, plan, watch. The limit is generous where other programs run as well."""
    search = replace(CONFIG.search, strategy="hirelc", cycles=3)
    config = replace(CONFIG, search=search, train=replace(CONFIG.train, images=TrainConfig.images, control=True))
    result = compress(tmp_path / "run", Goal(ratio=3), config, time="60s")
    first, last = events(result, "start")[0], events(result, "result")[0]
    from datetime import datetime

    taken = (datetime.fromisoformat(last["time"]) - datetime.fromisoformat(first["time"])).total_seconds()
    assert 20 < taken < 90
    assert len(events(result, "measurement")) >= 2

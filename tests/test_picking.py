"""Other goals and other sizes from a run that was made."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import hirelc
from hirelc import picking, points
from hirelc.config import Config, SearchConfig, TrainConfig
from hirelc.errors import RunError
from hirelc.policy import Goal
from hirelc.progress import Silent
from hirelc.results import Result
from hirelc.store import read_journal
from measure.small import Tiny, data, tiny

CONFIG = Config(
    fisher_samples=16,
    calibration_samples=16,
    search=SearchConfig(cycles=1, trials=1, low_level_steps=16, high_level_steps=16),
    train=TrainConfig(images=1500, batch_size=32, precision="fp32", evaluations=2, control=False),
)
SPLITS = {"train": data(), "val": data(96, 1)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("picking") / "run"
    hirelc.compress(tiny(), goal=Goal(ratio=7), out=folder, config=CONFIG, reporter=Silent(), test=data(96, 2), **SPLITS)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy: fronts are extended in place."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def picked(run: Path, goal: Goal, **changes: Any) -> Result:
    given = {"model": tiny(), "out": run.parent / "picked", "test": data(96, 2), **SPLITS, **changes}
    return picking.pick(run, given.pop("model"), goal=goal, reporter=Silent(), **given)


def test_a_run_is_points_with_their_candidates(made: Path) -> None:
    found = points.read_points(made)
    assert [p.size_bytes for p in found] == sorted(p.size_bytes for p in found)
    assert {p.fidelity for p in found} == {"full", "final"} and len(found) == 3
    for point in found:
        assert point.file(made).stat().st_size == point.size_bytes
        assert point.ratio == pytest.approx(found[0].ratio * found[0].size_bytes / point.size_bytes)
    final = next(p for p in found if p.fidelity == "final")
    assert final.file(made).read_bytes() == (made / "model.hirelc").read_bytes()
    least = float("inf")
    for point in found:
        assert point.best == (point.drop_points < least)
        least = min(least, point.drop_points)


@pytest.mark.parametrize("ratio", [5.5, 8.0])
def test_another_goal_is_met_without_a_search(run: Path, ratio: float) -> None:
    result = picked(run, Goal(ratio=ratio))
    assert result.shortfall is None and ratio <= result.compressed.ratio < 1.25 * ratio
    assert result.path.stat().st_size == result.compressed.size_bytes
    assert hirelc.load(result.path, Tiny)
    kinds = [event["event"] for event in read_journal(result.folder)]
    assert "measurement" not in kinds and kinds[-1] == "result"
    final = next(event for event in read_journal(result.folder) if event["event"] == "final")
    usual = next(event for event in read_journal(run) if event["event"] == "final")
    assert final["trained"]["images"] == pytest.approx(usual["trained"]["images"], abs=64)


def test_a_drop_alone_takes_the_smallest_that_keeps_it(run: Path) -> None:
    found = points.read_points(run)
    result = picked(run, Goal(max_drop=100.0), images=64)
    assert result.compressed.size_bytes <= found[0].size_bytes


def test_a_limit_on_what_is_computed_holds_too(run: Path) -> None:
    full = next(e["macs"] for e in read_journal(run) if e["event"] == "network")
    result = picked(run, Goal(ratio=4, max_macs=0.8 * full), images=320)
    assert result.compressed.macs <= 0.8 * full


def test_another_network_or_other_data_are_refused(run: Path) -> None:
    other = tiny()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    with pytest.raises(RunError, match="made with something else: the network's weights"):
        picked(run, Goal(ratio=3), model=other)
    with pytest.raises(RunError, match="the search-validation split"):
        picked(run, Goal(ratio=3), val=data(96, 7), out=run.parent / "again")


def test_a_front_has_the_points_that_are_wanted_and_keeps_them(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picking, "USELESS", 100.0)  # it is a very small network
    found = picking.extend_front(run, tiny(), **SPLITS, points=5, images=64, reporter=Silent())
    trained = points.distinct(p for p in found if p.fidelity in points.TRAINED)
    assert len(trained) >= 5
    added = [p for p in found if p.origin == "front"]
    assert added and all(hirelc.load(p.file(run), Tiny) for p in added)
    assert max(p.ratio for p in found) > 1.2 * 7
    before = len(read_journal(run))
    again = picking.extend_front(run, tiny(), **SPLITS, points=5, images=64, reporter=Silent())
    assert again == found and len(read_journal(run)) == before
    assert hirelc.resume(run, tiny(), test=data(96, 2), reporter=Silent(), **SPLITS).path == run / "model.hirelc"


def test_sizes_go_from_an_eighth_to_beyond_the_smallest() -> None:
    base = points.Point(0, 1000, 40.0, 90.0, 0.5, 1, "vote", "full")
    wanted = picking.missing_sizes([base], 40_000, 8)
    assert wanted == sorted(wanted, reverse=True) and wanted[0] == 5000 and wanted[-1] == 625
    factors = [a / b for a, b in pairwise(wanted)]
    assert max(factors) / min(factors) < 2.2  # equal ones, but where a point is there already
    near = replace(base, size_bytes=wanted[3])
    assert wanted[3] not in picking.missing_sizes([base, near], 40_000, 8)
    short = replace(near, fidelity="calibrated")
    assert wanted[3] in picking.missing_sizes([base, short], 40_000, 8)


def test_a_folder_without_candidates_says_so(run: Path) -> None:
    shutil.rmtree(run / "candidates")
    with pytest.raises(RunError, match="holds no measured candidate"):
        picked(run, Goal(ratio=3))

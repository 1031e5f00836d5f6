"""Other goals and other sizes from a run that was made."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import hirelc
from hirelc import picking, points
from hirelc.candidates import Bench
from hirelc.config import Config, SearchConfig, TrainConfig
from hirelc.errors import RunError
from hirelc.policy import Goal
from hirelc.progress import Silent
from hirelc.report.status import status
from hirelc.results import Result
from hirelc.store import RunDirectory, read_journal
from measure.small import Tiny, data, tiny
from test_resuming import Killed, kill_at_event, same

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


@pytest.mark.parametrize("ratio", [5.0, 8.0])
def test_another_goal_is_met_without_a_search(run: Path, ratio: float) -> None:
    result = picked(run, Goal(ratio=ratio))
    assert result.shortfall is None and ratio <= result.compressed.ratio < 1.25 * ratio
    assert result.path.stat().st_size == result.compressed.size_bytes
    assert hirelc.load(result.path, Tiny)
    kinds = [event["event"] for event in read_journal(result.folder)]
    assert kinds.count("measurement") == 1 and kinds[-1] == "result"
    assert [(m.fidelity, m.images_seen) for m in result.measurements] == [("calibrated", 0)]  # where the fine-tune began
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


@pytest.fixture(scope="module")
def left_alone(made: Path) -> Result:
    return picked(made, Goal(ratio=5.5), images=96, out=made.parent / "left-alone")


@pytest.mark.parametrize(("kind", "again"), [("measurement", 1), ("pick", 1), ("final", 0)])
def test_a_pick_that_was_killed_goes_on(
    left_alone: Result, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, again: int
) -> None:
    """The end is that of a pick left alone, and nothing is searched."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at_event(patch, kind)
        picked(run, Goal(ratio=5.5), images=96)
    measured, honest = [], Bench.measure
    monkeypatch.setattr(Bench, "measure", lambda *args, **more: measured.append(1) or honest(*args, **more))
    same(hirelc.resume(tmp_path / "picked", tiny(), test=data(96, 2), reporter=Silent(), **SPLITS), left_alone)
    assert len(measured) == again
    kinds = [event["event"] for event in read_journal(tmp_path / "picked")]
    for once in ("start", "resumed", "baseline", "sensitivity", "proxy", "measurement", "pick", "final", "test", "result"):
        assert kinds.count(once) == 1, once


def test_a_pick_that_died_early_needs_the_run_that_it_began_with(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at_event(patch, "measurement")
        picked(run, Goal(ratio=5.5))
    shutil.rmtree(run)
    with pytest.raises(RunError, match=r"was picked from .*run, and .*hirelc cannot be read.*: restore that run, or remove"):
        hirelc.resume(run.parent / "picked", tiny(), test=data(96, 2), reporter=Silent(), **SPLITS)
    last = read_journal(run.parent / "picked")[-1]
    assert last["event"] == "interrupted" and "restore that run" in last["reason"]


class Following(Silent):
    """What a live view is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begin(self, folder: Path) -> None:
        self.told.append(f"begin {folder.name}")

    def event(self, record: Mapping[str, Any]) -> None:
        self.told.append(record["event"])

    def end(self) -> None:
        self.told.append("end")


def test_picks_and_fronts_are_followed(run: Path) -> None:
    follower = Following()
    picking.pick(run, tiny(), goal=Goal(ratio=5.5), out=run.parent / "picked", images=64, reporter=follower, **SPLITS)
    assert follower.told[:2] == ["begin picked", "start"] and follower.told[-2:] == ["result", "end"]
    assert (run.parent / "picked" / "tensorboard").is_dir()
    follower = Following()
    picking.extend_front(run, tiny(), **SPLITS, points=4, images=64, reporter=follower)
    assert follower.told[0] == "begin run" and follower.told[-2:] == ["front", "end"]
    assert not (run / "checkpoints").exists()


@pytest.mark.slow
def test_a_front_of_a_run_that_died_leaves_its_search_alone(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"goal": Goal(ratio=7), "config": CONFIG, "reporter": Silent(), "test": data(96, 2), **SPLITS}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at_event(patch, "measurement", 1)
        hirelc.compress(tiny(), out=tmp_path / "run", **given)
    picking.extend_front(tmp_path / "run", tiny(), **SPLITS, points=2, images=64, reporter=Silent())
    added = {
        p.candidate: p.file(tmp_path / "run").read_bytes() for p in points.read_points(tmp_path / "run") if p.origin == "front"
    }
    assert added
    hirelc.resume(tmp_path / "run", tiny(), test=data(96, 2), reporter=Silent(), **SPLITS)
    assert (tmp_path / "run" / "model.hirelc").read_bytes() == (made / "model.hirelc").read_bytes()
    for point in points.read_points(tmp_path / "run"):
        assert point.file(tmp_path / "run").stat().st_size == point.size_bytes
        if point.origin == "front":
            assert point.file(tmp_path / "run").read_bytes() == added[point.candidate]


def test_an_interrupted_front_does_not_make_an_ended_run_an_interrupted_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Bench, "measure", interrupted)
        picking.extend_front(run, tiny(), **SPLITS, points=5, images=64, reporter=Silent())
    assert read_journal(run)[-1]["event"] == "interrupted"
    assert status(run, datetime.now(UTC)).state == "finished"


def test_a_pick_trains_as_long_as_the_run_did(tmp_path: Path) -> None:
    directory, config = RunDirectory.create(tmp_path / "run"), Config(train=TrainConfig(images=1000, search_share=0.25))
    directory.journal("start")
    assert picking._usual_final_images(directory.path, config) == 750
    directory.journal("time_plan", images=400)  # where a time was given, the settings' images are nobody's
    assert picking._usual_final_images(directory.path, config) == 300
    directory.journal("time_final", images=320)
    assert picking._usual_final_images(directory.path, config) == 320


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

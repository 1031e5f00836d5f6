"""The control is trained once for every goal that a run serves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import hirelc
from hirelc import picking
from hirelc.policy import Goal
from hirelc.progress import Silent
from hirelc.store import read_journal
from measure.small import data, tiny
from test_picking import CONFIG, SPLITS

WITH_CONTROL = replace(CONFIG, train=replace(CONFIG.train, control=True))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("controls") / "run"
    hirelc.compress(tiny(), goal=Goal(ratio=7), out=folder, config=WITH_CONTROL, reporter=Silent(), test=data(96, 2), **SPLITS)
    return folder


def control_event(folder: Path) -> dict:
    return next(event for event in read_journal(folder) if event["event"] == "control")


def picked(made: Path, out: Path, images: int | None = None) -> hirelc.Result:
    given = {"test": data(96, 2), "images": images, "reporter": Silent(), **SPLITS}
    return picking.pick(made, tiny(), goal=Goal(ratio=6), out=out, **given)


def test_a_pick_takes_over_the_control_of_its_run(made: Path, tmp_path: Path) -> None:
    result = picked(made, tmp_path / "picked")
    taken = control_event(tmp_path / "picked")
    assert taken["taken_from"] == str(made) and taken["planned"] == control_event(made)["planned"]
    assert result.control is not None and result.control.test is not None
    own = hirelc.Result.from_json(made, made / "model.hirelc", json.loads((made / "result.json").read_text()), ())
    assert result.control == own.control
    # and a pick of the pick takes it from there
    again = picking.pick(
        tmp_path / "picked", tiny(), goal=Goal(ratio=5), out=tmp_path / "again", reporter=Silent(), test=data(96, 2), **SPLITS
    )
    assert again.control == own.control


def test_the_control_that_would_be_trained_is_the_same_one(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = picked(made, tmp_path / "taken")
    monkeypatch.setattr("hirelc.controls._known", lambda *_: None)
    trained = picked(made, tmp_path / "trained")
    assert trained.control is not None and taken.control is not None
    assert replace(trained.control, seconds=0.0) == replace(taken.control, seconds=0.0)


def test_other_training_needs_another_control(made: Path, tmp_path: Path) -> None:
    result = picked(made, tmp_path / "other", images=96)
    assert "taken_from" not in control_event(tmp_path / "other")
    assert result.control is not None and result.control.test is not None

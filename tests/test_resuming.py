"""Runs that die and go on: their ends are those of a run that did not."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import hirelc
from hirelc import checkpoints, pacing, replaying, resuming
from hirelc.batches import Sealed
from hirelc.candidates import Bench
from hirelc.checkpoints import FileCheckpoint
from hirelc.config import Config, SearchConfig, TrainConfig
from hirelc.ending import MODEL_FILE
from hirelc.errors import RunError
from hirelc.policy import Goal
from hirelc.progress import Silent
from hirelc.results import Result
from hirelc.store import JOURNAL, RunDirectory, locked, read_journal
from hirelc.timing import Pace, Speeds, TimeBudget
from measure.small import Tiny, data, tiny

CONFIG = Config(
    fisher_samples=16,
    calibration_samples=16,
    search=SearchConfig(cycles=2, strategy="random"),
    train=TrainConfig(images=1200, batch_size=32, precision="fp32", evaluations=2, rate_term=False),
)
GOAL = Goal(ratio=3.0)


class Killed(BaseException):
    """Nothing of the program catches it: what is on the disk is what a killed process leaves."""


class Noting(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@cache
def original() -> Tiny:
    return tiny()


def compress(out: Path, config: Config = CONFIG, **more: Any) -> Result:
    splits = {"train": data(), "val": data(96, 1), "test": data(96, 2)}
    return hirelc.compress(original(), goal=GOAL, out=out, config=config, reporter=Silent(), **splits, **more)


def resume(out: Path, say: Noting | None = None, **changes: Any) -> Result:
    given = {"model": original(), "train": data(), "val": data(96, 1), "test": data(96, 2), **changes}
    return hirelc.resume(out, reporter=say or Silent(), **given)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return compress(tmp_path_factory.mktemp("whole") / "run")


def same(one: Result, other: Result) -> None:
    assert one.policy == other.policy
    assert one.path.read_bytes() == other.path.read_bytes()
    assert (one.images_seen, one.shortfall, one.loss_points) == (other.images_seen, other.shortfall, other.loss_points)
    assert [replace(m, seconds=0) for m in one.measurements] == [replace(m, seconds=0) for m in other.measurements]
    for row, twin in zip(one.rows, other.rows, strict=True):
        assert replace(row, seconds=0) == replace(twin, seconds=0)


def kill_at_event(monkeypatch: pytest.MonkeyPatch, kind: str, number: int = 0) -> None:
    """Before the number-th event of a kind is written."""
    honest, seen = RunDirectory.journal, []

    def journal(self: RunDirectory, event: str, **fields: Any) -> None:
        if event == kind:
            seen.append(event)
            if len(seen) > number:
                raise Killed
        honest(self, event, **fields)

    monkeypatch.setattr(RunDirectory, "journal", journal)


@pytest.mark.parametrize(("kind", "number", "repeated"), [("sensitivity", 0, 3), ("measurement", 1, 2), ("pick", 0, 0)])
def test_a_run_killed_in_its_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Result, kind: str, number: int, repeated: int
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at_event(patch, kind, number)
        compress(tmp_path / "run")
    measured, honest = [], Bench.measure
    monkeypatch.setattr(Bench, "measure", lambda *args, **more: measured.append(1) or honest(*args, **more))
    same(resume(tmp_path / "run"), whole)
    assert len(measured) == repeated
    events = read_journal(tmp_path / "run")
    assert [event["event"] for event in events].count("resumed") == 1
    for once in ("start", "network", "baseline", "sensitivity", "proxy", "pick", "final", "control", "test", "result"):
        assert [event["event"] for event in events].count(once) == 1, once
    assert [event["event"] for event in events].count("measurement") == len(whole.measurements)
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == sorted(p.name for p in whole.folder.iterdir())


@pytest.mark.parametrize("save", [2, 4, 6])
def test_a_run_killed_in_its_long_fine_tunes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Result, save: int) -> None:
    """A state is saved every few steps: the 2nd save in the final fine-tune, the others in the control."""
    saves, asked = [], []
    honest = FileCheckpoint.save

    def saving(self: FileCheckpoint, *args: Any) -> None:
        honest(self, *args)
        saves.append(self.name)
        if len(saves) == save:
            raise Killed

    def due(self: FileCheckpoint) -> bool:
        asked.append(1)
        return len(asked) % 7 == 0

    with monkeypatch.context() as patch:
        patch.setattr(FileCheckpoint, "due", due)
        patch.setattr(FileCheckpoint, "save", saving)
        with pytest.raises(Killed):
            compress(tmp_path / "run")
    monkeypatch.setattr(Bench, "measure", lambda *_, **__: pytest.fail("measured again"))
    monkeypatch.setattr(resuming, "clear_checkpoints", lambda _: None)
    same(resume(tmp_path / "run"), whole)


def test_killed_at_the_very_end_and_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Result) -> None:
    sealed = Sealed(data(96, 2))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at_event(patch, "result")
        compress(tmp_path / "run")
    same(resume(tmp_path / "run", test=sealed), whole)
    assert sealed.readings == 0  # the test split was read before
    before = (tmp_path / "run" / JOURNAL).read_bytes()
    same(resume(tmp_path / "run"), whole)
    assert (tmp_path / "run" / JOURNAL).read_bytes() == before


@pytest.mark.parametrize(("kind", "number", "repeated"), [("measurement", 1, 1), ("final", 0, 0)])
def test_a_run_with_a_time_goes_on_with_its_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, number: int, repeated: int
) -> None:
    """How much is trained is decided once, whatever the clock says later."""
    monkeypatch.setattr(pacing, "measure_speeds", lambda *_: Speeds(0.4, 0.0, 1.0, 1.0, 0.001))
    monkeypatch.setattr(Pace, "fits", lambda *_: True)
    search = SearchConfig(cycles=1, strategy="random")
    config = replace(CONFIG, search=search, train=replace(CONFIG.train, images=TrainConfig.images, control=False))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Pace, "final_images", lambda *_: 320)
        kill_at_event(patch, kind, number)
        compress(tmp_path / "run", config, time=TimeBudget(600))
    measured, honest = [], Bench.measure
    monkeypatch.setattr(Bench, "measure", lambda *args, **more: measured.append(1) or honest(*args, **more))
    monkeypatch.setattr(Pace, "final_images", lambda *_: 320 if kind == "measurement" else 64)
    monkeypatch.setattr(pacing, "measure_speeds", lambda *_: pytest.fail("planned again"))
    result = resume(tmp_path / "run")
    assert len(measured) == repeated
    events = read_journal(tmp_path / "run")
    for once in ("time_plan", "time_final", "result"):
        assert [event["event"] for event in events].count(once) == 1
    final = next(event for event in events if event["event"] == "final")
    assert final["trained"]["images"] == 320 and result.path.is_file()


def died(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at_event(patch, "measurement", 1)
        compress(folder)
    return folder


def test_what_is_damaged_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Result) -> None:
    run = died(tmp_path / "run", monkeypatch)
    for name in ("candidates/000.safetensors", "checkpoints/sensitivity.safetensors"):
        content = bytearray((run / name).read_bytes())
        content[-5] ^= 4
        (run / name).write_bytes(content)
    with (run / JOURNAL).open("ab") as file:
        file.write(b'{"sequence": 5, "time"')
    say = Noting()
    same(resume(run, say), whole)
    assert any("000.safetensors is damaged" in text and "candidate 1 is measured again" in text for text in say.warnings)
    assert any("the sensitivity is measured again" in text for text in say.warnings)
    assert (run / "candidates/000.safetensors").read_bytes() != bytes(content)
    assert [event["event"] for event in read_journal(run)].count("measurement") == len(whole.measurements)


def other_weights() -> Tiny:
    network = copy.deepcopy(original())
    with torch.no_grad():
        network.head.bias[0] += 1e-6
    return network


def other_structure() -> Tiny:
    network = copy.deepcopy(original())
    network.layers[0][3].p = 0.2
    return network


def test_a_run_goes_on_with_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = died(tmp_path / "run", monkeypatch)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    def refused(message: str, call: Callable[[], object]) -> None:
        with pytest.raises(RunError, match=message):
            call()
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before

    refused(r"something else: the network's weights: give", lambda: resume(run, model=other_weights()))
    refused(r"something else: the network's structure: give", lambda: resume(run, model=other_structure()))
    refused(r"the fine-tuning split \(256 samples, now 250\): give", lambda: resume(run, train=data(250)))
    refused(r"the search-validation split \(other samples\): give", lambda: resume(run, val=data(96, 5)))
    refused(r"the test split \(there is none now\): give", lambda: resume(run, test=None))
    with monkeypatch.context() as patch:
        patch.setattr(resuming, "__version__", "9.9")
        refused(r"begun by hirelc .*, and this is 9.9: install", lambda: resume(run))
    with locked(run):
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        refused("is being written by process", lambda: resume(run))
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "seed": 5}))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    refused(r"config.json was changed since \(seed\)", lambda: resume(run))


def test_a_search_that_comes_to_something_else_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = died(tmp_path / "run", monkeypatch)
    monkeypatch.setattr(replaying, "environment", lambda: {"threads": 99, "torch": torch.__version__})
    honest = replaying.Recorded.recall
    monkeypatch.setattr(
        replaying.Recorded, "recall", lambda self, bench, i, policy, size: honest(self, bench, i, policy, size + 1)
    )
    say = Noting()
    with pytest.raises(RunError, match=r"cannot be continued here: measurement 0 was of policy .*threads: \d, now 99"):
        resume(run, say)
    assert any("threads: 1, now 99; its end may differ" in text or "now 99" in text for text in say.warnings)


def test_folders_that_hold_nothing_to_go_on_with(tmp_path: Path, whole: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match=r"holds no run \(no journal.jsonl\)"):
        resume(tmp_path / "nowhere")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at_event(patch, "start")
        compress(tmp_path / "early")
    with pytest.raises(RunError, match="died before it began: start it again, the folder can stay"):
        resume(tmp_path / "early")
    shutil.copytree(whole.folder, tmp_path / "old")
    (tmp_path / "old" / "fingerprint.json").unlink()
    with pytest.raises(RunError, match="begun by a hirelc that could not resume"):
        resume(tmp_path / "old")
    with pytest.raises(RunError, match=r"begun in Python: hirelc.resume"):
        resuming.stored_inputs(whole.folder)


def test_a_file_that_is_gone_is_made_again(tmp_path: Path, whole: Result) -> None:
    shutil.copytree(whole.folder, tmp_path / "run")
    (tmp_path / "run" / MODEL_FILE).unlink()
    same(resume(tmp_path / "run"), whole)


def test_how_often_a_checkpoint_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    honest = RunDirectory.write_bytes
    monkeypatch.setattr(RunDirectory, "write_bytes", lambda *args: (now.append(now.pop() + 0.5), honest(*args))[1])
    checkpoint = FileCheckpoint(RunDirectory.create(tmp_path), "a", Silent())
    now[0] = 0.9
    assert not checkpoint.due()
    now[0] = 1.1
    assert checkpoint.due()
    checkpoint.save({"x": torch.ones(2)}, {})  # takes half a second
    now[0] += 24.0
    assert not checkpoint.due()
    now[0] += 1.1
    assert checkpoint.due()

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hirelc.errors import RunError
from hirelc.progress import Silent
from hirelc.tracking import choosing, tensorboard
from hirelc.tracking.choosing import trackers, trackers_of
from hirelc.tracking.tensorboard import TensorBoard
from live.events import replay, whole_run


class Telling(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_scalars_are_read_back(tmp_path: Path) -> None:
    board = TensorBoard(Telling())
    replay(board, tmp_path, len(whole_run()))
    board.end()
    found = curves(tmp_path)
    assert found["measured/bytes"] == [(1, 99_000.0), (2, 98_000.0), (4, 97_000.0)]
    assert found["test/original"] == [(0, 89.0)]


def test_numbers_are_there_while_the_run_goes_and_once_after_a_resume(tmp_path: Path) -> None:
    board = TensorBoard(Telling())
    replay(board, tmp_path, 7)  # and then it is killed: no end
    assert curves(tmp_path)["measured/bytes"] == [(1, 99_000.0), (2, 98_000.0)]
    again = TensorBoard(Telling())
    replay(again, tmp_path, len(whole_run()))
    again.end()
    assert [step for step, _ in curves(tmp_path)["measured/bytes"]] == [1, 2, 4]


def test_tensorboardx_does_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: name == "tensorboardX" or None)
    board = TensorBoard(Telling())
    replay(board, tmp_path, 7)
    board.end()
    assert curves(tmp_path)["measured/bytes"] == [(1, 99_000.0), (2, 98_000.0)]


def test_a_folder_that_cannot_be_written_is_one_warning(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file")
    say = Telling()
    board = TensorBoard(say)
    replay(board, tmp_path, len(whole_run()))
    board.end()
    assert len(say.warnings) == 1 and say.warnings[0].startswith("no more scalars for TensorBoard (")


def test_without_it_nothing_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    monkeypatch.setattr(choosing, "installed", tensorboard.installed)
    assert trackers([], Telling()) == []
    with pytest.raises(RunError, match=r"TensorBoard is not installed: pip install 'hirelc\[tensorboard\]'"):
        trackers(["tensorboard"], Telling())


def test_choosing_imports_nothing_heavy() -> None:
    code = (
        "import sys, json\nfrom hirelc.tracking.choosing import trackers\nfrom hirelc.progress import Silent\n"
        "found = [type(t).__name__ for t in trackers([], Silent())]\n"
        "print(json.dumps([found, [m for m in ('tensorboard', 'tensorboardX', 'mlflow', 'torch.utils.tensorboard') "
        "if m in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [["TensorBoard"], []]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["wandb"], "unknown tracker 'wandb': use tensorboard, mlflow, mlflow:URI or none"),
        (["mlflow:"], "unknown tracker 'mlflow:'"),
        (["none", "mlflow"], "stands alone"),
    ],
)
def test_unknown_trackers_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(RunError, match=message):
        trackers(names, Telling())


def test_none_is_none() -> None:
    assert trackers(["none"], Telling()) == []


def test_a_run_that_goes_on_keeps_its_trackers(tmp_path: Path) -> None:
    assert trackers_of(tmp_path, Telling()) == []  # it was begun with --track none
    (tmp_path / "tensorboard").mkdir()
    assert [type(tracker) for tracker in trackers_of(tmp_path, Telling())] == [TensorBoard]

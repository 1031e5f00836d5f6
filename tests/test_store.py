from __future__ import annotations

import getpass
import json
import os
import platform
from pathlib import Path

import numpy as np
import pytest
import torch

from hirelc import store
from hirelc.errors import RunError
from hirelc.policy import Choice, Goal, Policy
from hirelc.store import RunDirectory, atomic_write, environment, read_journal


def test_journal_is_numbered_timed_and_readable_at_once(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.journal("started", seed=3)
    run.journal("cycle", values=[1, 2.5], nested={"a": (1, None)}, block=np.int64(4), drop=torch.tensor(0.5))
    events = read_journal(tmp_path / "run")
    assert [event["sequence"] for event in events] == [0, 1]
    assert all(event["time"].endswith("Z") for event in events)
    assert events[1]["nested"] == {"a": [1, None]} and events[1]["block"] == 4 and events[1]["drop"] == 0.5
    assert events == read_journal(run.path / "journal.jsonl")


def test_journal_takes_values_of_the_method_and_turns_nan_into_null(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path)
    policy = Policy.of({"a.weight": Choice(bits=3)})
    run.journal("policy", policy=policy, goal=Goal(ratio=10), drop=float("nan"), reward=float("-inf"), path=tmp_path)
    event = read_journal(tmp_path)[0]
    assert Policy.from_json(event["policy"]) == policy and event["goal"]["ratio"] == 10
    assert event["drop"] is None and event["reward"] is None


@pytest.mark.parametrize("value", [object(), {1.5: 2}, torch.zeros(3), {1, 2}])
def test_journal_refuses_what_json_cannot_hold(tmp_path: Path, value: object) -> None:
    run = RunDirectory.create(tmp_path)
    with pytest.raises(RunError, match="journal event 'odd'"):
        run.journal("odd", value=value)
    with pytest.raises(RunError, match="reserved"):
        run.journal("odd", time=3)
    assert read_journal(tmp_path) == []


def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "deep" / "run")
    RunDirectory.create(tmp_path / "deep" / "run")  # one that died before its first event is none
    run.journal("start")
    with pytest.raises(RunError, match=r"already holds a run: `hirelc resume .*/deep/run` goes on with it; else choose"):
        RunDirectory.create(tmp_path / "deep" / "run")
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match="choose"):
            RunDirectory.create(path)


def test_a_torn_last_line_is_left_out_and_mended(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path)
    run.journal("one")
    run.journal("two")
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"sequence": 2, "ev')
    assert [event["event"] for event in read_journal(tmp_path)] == ["one", "two"]
    RunDirectory.open(tmp_path).journal("three")
    assert [event["sequence"] for event in read_journal(tmp_path)] == [0, 1, 2]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text('{"sequence": 0}\nnonsense\n{"sequence": 2}\n')
    with pytest.raises(RunError, match="line 2 is damaged"):
        read_journal(tmp_path)
    with pytest.raises(RunError, match="no journal there"):
        RunDirectory.open(tmp_path / "nowhere")


def test_files_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory.create(tmp_path)
    path = run.write_json("config.json", {"a": float("inf"), "b": [1]})
    assert json.loads(path.read_text()) == {"a": None, "b": [1]}
    run.write_bytes("sub/model.bin", b"old")

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "replace", fails)
    with pytest.raises(RunError, match="No space left"):
        run.write_bytes("sub/model.bin", b"new")
    assert [file.name for file in (tmp_path / "sub").iterdir()] == ["model.bin"]
    assert (tmp_path / "sub" / "model.bin").read_bytes() == b"old"
    with pytest.raises(RunError, match="cannot be written"):
        atomic_write(tmp_path / "no" / "folder", b"")


def test_environment_names_versions_but_no_person_or_place() -> None:
    found = environment()
    assert found["torch"] == torch.__version__ and found["numpy"] == np.__version__ and found["threads"] >= 1
    text = json.dumps(found)
    assert platform.node() not in text and os.path.expanduser("~") not in text and f'"{getpass.getuser()}"' not in text

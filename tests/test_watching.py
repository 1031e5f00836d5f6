from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hirelc.progress import Observer, RichReporter, Silent
from hirelc.store import RunDirectory, read_journal
from hirelc.watching import watched


class Listener(Silent):
    """A reporter that observes, and an observer alike."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def begin(self, folder: Path) -> None:
        self.heard.append(folder)

    def event(self, record: Mapping[str, Any]) -> None:
        self.heard.append(dict(record))

    def end(self) -> None:
        self.heard.append("end")


class Refusing(Listener):
    def begin(self, folder: Path) -> None:
        raise OSError("no server")


def test_observers_hear_what_the_journal_holds(tmp_path: Path) -> None:
    directory, say, other = RunDirectory.create(tmp_path / "run"), Listener(), Listener()
    directory.journal("before", n=1)
    directory.observers.append(other)
    with watched(directory, say):
        directory.journal("during", loss=float("nan"))
    directory.journal("after")
    events = read_journal(tmp_path / "run")
    assert say.heard == other.heard == [directory.path, *events[:2], "end"]
    assert events[1]["loss"] is None


def test_reporters_need_not_observe(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "run")
    assert not isinstance(Silent(), Observer) and not isinstance(RichReporter(), Observer)
    with watched(directory, Silent()):
        directory.journal("start")
    assert directory.observers == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_the_end_is_told_however_it_comes(tmp_path: Path, error: type[BaseException]) -> None:
    directory, say = RunDirectory.create(tmp_path / "run"), Listener()
    with pytest.raises(error), watched(directory, say):
        raise error
    assert say.heard[-1] == "end" and directory.observers == []


def test_an_observer_that_cannot_begin_ends_those_that_did(tmp_path: Path) -> None:
    directory, say, first = RunDirectory.create(tmp_path / "run"), Listener(), Listener()
    directory.observers += [first, Refusing()]
    with pytest.raises(OSError, match="no server"), watched(directory, say):
        pass
    assert first.heard == [directory.path, "end"] and say.heard == []
    assert directory.observers == []

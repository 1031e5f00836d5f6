from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from hirelc.live import watch as module
from hirelc.live.watch import watch
from hirelc.report.page import write_report
from hirelc.report.status import status, status_words
from hirelc.store import in_use, locked
from live.events import Terminal, folder_of, whole_run


def write(folder: Path, count: int) -> None:
    folder_of(folder)
    (folder / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in whole_run()[:count]))


def going_on(folder: Path, counts: list[int]) -> Callable[[float], None]:
    """Stands in for time.sleep: meanwhile the run writes more events."""
    left = iter(counts)

    def sleep(seconds: float) -> None:
        count = next(left, None)
        if count is None:
            raise KeyboardInterrupt
        write(folder, count)

    return sleep


def test_in_a_terminal_the_frame_follows_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, terminal = tmp_path / "run", Terminal()
    write(folder, 7)
    monkeypatch.setattr(module.time, "sleep", going_on(folder, [9, len(whole_run())]))
    with locked(folder):
        watch(folder, terminal.console)
    text = terminal.text()
    assert text.count("╭") == 1 and "finished, the goal is met" in text and not terminal.cursor_hidden


def test_elsewhere_each_event_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, file = tmp_path / "run", io.StringIO()
    write(folder, 7)
    monkeypatch.setattr(module.time, "sleep", going_on(folder, [7, 7, len(whole_run())]))
    watch(folder, Console(file=file, width=40))
    assert file.getvalue().count("goal      at least 10x smaller, at most 0.5 points lost\n") == 2
    assert "\x1b" not in file.getvalue()


def test_ctrl_c_leaves_the_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, terminal = tmp_path / "run", Terminal()
    write(folder, 7)
    monkeypatch.setattr(module.time, "sleep", going_on(folder, []))
    with locked(folder):
        watch(folder, terminal.console)
        assert in_use(folder) is True
    assert "cycle 2 of 2" in terminal.text() and not terminal.cursor_hidden


def test_a_run_whose_process_is_gone_has_died(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write(folder, 7)
    now = datetime.now(UTC)
    assert in_use(folder) is None and status(folder, now).state == "running"  # as of runs before there were locks
    with locked(folder):
        found = status(folder, now)
        assert found.state == "running" and found.left_seconds is not None
        assert "left" in status_words(found)
    assert in_use(folder) is False
    found = status(folder, now)
    assert found.state == "died" and found.left_seconds is None
    assert f"{folder}: died, while in cycle 2 of 2" in status_words(found)
    assert f"go on     hirelc resume {folder}" in status_words(found)
    assert "Died before its end" in write_report(folder).read_text()
    terminal = Terminal()
    watch(folder, terminal.console)  # ends by itself
    assert "died, while in cycle 2 of 2" in terminal.text() and "hirelc resume" in terminal.text()


def test_looking_does_not_take_the_lock(tmp_path: Path) -> None:
    with locked(tmp_path):
        pass
    assert in_use(tmp_path) is False
    with locked(tmp_path):
        assert in_use(tmp_path) is True

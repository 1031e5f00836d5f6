from __future__ import annotations

import io
import re
import threading
from pathlib import Path

import pytest
from rich.console import Console

from hirelc.live import front as front_module
from hirelc.live.front import BEHIND, BEST, FINAL, FRONT, Front, Point, front_of
from hirelc.live.view import LiveReporter
from hirelc.progress import Observer
from hirelc.report.reading import gathered
from live.events import Terminal, replay, whole_run

MEASURED = 8  # events up to a candidate that failed


def test_the_frame_says_how_the_run_stands(tmp_path: Path) -> None:
    terminal = Terminal()
    view = LiveReporter(console=terminal.console)
    assert isinstance(view, Observer)
    replay(view, tmp_path / "mine", MEASURED)
    with view.stage("measuring candidate 4", 100) as stage:
        stage.advance(40)
        stage.update("block conv1")
        view.event({**whole_run()[MEASURED - 1], "event": "note"})
        text = terminal.text()
    view.end()
    assert "mine" in text.splitlines()[0]
    assert "cycle 2 of 2, 3 candidates measured, 1 rejected" in text
    assert "goal  at least 10x smaller, at most 0.5 points lost" in text
    assert "best  10.20x smaller, 98,000 bytes, +0.90 points lost: short of the goal" in text
    assert "now   measuring candidate 4, block conv1: " in text and "40%" in text
    assert re.search(r"run   \d+ min \d\d s, about .* left", text)
    for mark in (BEHIND, BEST, "─ goal"):
        assert mark in text


@pytest.mark.parametrize("count", range(1, len(whole_run()) + 1))
@pytest.mark.parametrize(("width", "height"), [(60, 24), (100, 40), (60, 12), (30, 8)])
def test_every_moment_fits_every_terminal(tmp_path: Path, count: int, width: int, height: int) -> None:
    terminal = Terminal(width, height)
    view = LiveReporter(console=terminal.console)
    replay(view, tmp_path / "run", count)
    frame = view.frame()
    view.end()
    with terminal.console.capture() as captured:
        terminal.console.print(frame)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", captured.get()).splitlines()
    assert max(map(len, lines)) <= width
    if width >= 60 and height >= 24:
        assert len(lines) < height


def test_the_last_frame_stays_with_what_was_said(tmp_path: Path) -> None:
    terminal = Terminal()
    view = LiveReporter(console=terminal.console)
    replay(view, tmp_path / "run", MEASURED)
    view.line("cycle 2: said while the frame stands")
    assert terminal.cursor_hidden
    for event in whole_run()[MEASURED:]:
        view.event(event)
    view.end()
    view.line("said after the run")
    lines = terminal.text().splitlines()
    assert lines[0] == "cycle 2: said while the frame stands"
    assert lines[-1] == "said after the run"
    assert sum(line.startswith("╭") for line in lines) == 1  # no frame was left behind
    assert "finished, the goal is met" in terminal.text() and FINAL in terminal.text()
    assert not terminal.cursor_hidden


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_end_with_an_error_leaves_the_frame_and_the_cursor(tmp_path: Path, error: type[BaseException]) -> None:
    terminal = Terminal()
    view = LiveReporter(console=terminal.console)
    replay(view, tmp_path / "run", MEASURED)
    with pytest.raises(error), view.stage("measuring candidate 4", 10):
        raise error
    if error is KeyboardInterrupt:
        view.event({**whole_run()[MEASURED], "event": "interrupted"})
    view.end()
    assert "best  10.20x" in terminal.text()
    state = "interrupted" if error is KeyboardInterrupt else "died"
    assert f"state {state}, while in cycle 2 of 2" in terminal.text()
    assert not terminal.cursor_hidden
    assert "hirelc live view" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("size", [(60, 24), (90, 20), (120, 40)])
def test_a_resize_leaves_one_frame(tmp_path: Path, size: tuple[int, int]) -> None:
    terminal = Terminal(90, 30)
    view = LiveReporter(console=terminal.console)
    replay(view, tmp_path / "run", MEASURED)
    view.line("cycle 1: a line before the resize")
    terminal.resize(*size)
    view.event(whole_run()[MEASURED])
    text = terminal.text()
    view.end()
    assert text.count("╭") == text.count("╰") == 1
    assert "cycle 1: a line before the resize" in text
    assert max(map(len, text.splitlines())) <= size[0]


@pytest.mark.parametrize("width", [60, 90, 120])
def test_a_ctrl_c_that_is_echoed_leaves_one_frame(tmp_path: Path, width: int) -> None:
    terminal = Terminal(width, 30)
    view = LiveReporter(console=terminal.console)
    replay(view, tmp_path / "run", MEASURED)
    terminal.file.write("^C")
    view.event({**whole_run()[MEASURED], "event": "interrupted"})
    view.end()
    text = terminal.text()
    assert text.count("╭") == 1 and "^C" not in text


def test_no_colour(tmp_path: Path) -> None:
    terminal = Terminal(environment={"NO_COLOR": "1"})
    view = LiveReporter(console=terminal.console)
    replay(view, tmp_path / "run", MEASURED)
    view.end()
    styles = {code for found in re.findall(r"\x1b\[([0-9;]*)m", terminal.file.getvalue()) for code in found.split(";")}
    assert styles <= {"", "0", "1", "2"}  # bold and dim are no colours
    assert BEST in terminal.text()


def test_a_terminal_that_knows_ascii_only(tmp_path: Path) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", newline="")
    console = Console(file=file, force_terminal=True, width=80, height=30, _environ={"TERM": "xterm"})
    view = LiveReporter(console=console)
    replay(view, tmp_path / "run", MEASURED)
    view.end()
    file.flush()
    assert b"10.20x" in raw.getvalue() and b"+0.90 points lost" in raw.getvalue()


def test_a_terminal_that_is_gone_does_not_end_the_run(tmp_path: Path) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    console = Console(file=Gone(), force_terminal=True, width=80, height=30, _environ={"TERM": "xterm"})
    view = LiveReporter(console=console)
    replay(view, tmp_path / "run", MEASURED)
    view.line("nobody reads this")
    view.warn("nor this")
    view.end()


def test_without_the_library_the_front_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hirelc.live.frame.can_plot", lambda: False)
    terminal = Terminal()
    view = LiveReporter(console=terminal.console)
    replay(view, tmp_path / "run", MEASURED)
    view.end()
    assert re.search(r"10\.20x +98,000 bytes +\+0\.90 points lost +best", terminal.text())


def test_stages_before_and_after_a_run_are_bars(tmp_path: Path) -> None:
    terminal = Terminal()
    view = LiveReporter(console=terminal.console)
    with view.stage("training the original", 4) as stage:
        stage.advance(2)
    replay(view, tmp_path / "run", 3)
    view.end()
    with view.stage("again", 4) as stage:
        stage.advance(2)
    assert "training the original" in terminal.file.getvalue() and "again" in terminal.file.getvalue()


def test_one_view_serves_one_run_after_another(tmp_path: Path) -> None:
    terminal = Terminal(90, 60)
    view = LiveReporter(console=terminal.console)
    for name in ("first", "second"):
        replay(view, tmp_path / name, len(whole_run()))
        view.end()
    text = terminal.text()
    assert text.count("╭") == 2 and "first" in text and "second" in text


def test_the_front_knows_its_points(tmp_path: Path) -> None:
    run = gathered(tmp_path, whole_run())
    found = front_of(run)
    assert found == Front(
        (
            Point(99_000, 1.2, BEHIND),
            Point(98_000, 0.9, BEHIND),
            Point(97_000, 0.4, BEST),
            Point(97_000, pytest.approx(0.1), FINAL),
        ),
        100_000,
        0.5,
        1_000_000,
    )
    two = front_of(gathered(tmp_path, [*whole_run()[:5], *map(_smaller, whole_run()[5:7])]))
    assert [point.mark for point in two.points] == [FRONT, BEST]


def _smaller(event: dict[str, object]) -> dict[str, object]:
    """The reference loses more and is smaller: neither beats the other."""
    value = dict(event["measurement"])  # type: ignore[call-overload]
    return {**event, "measurement": {**value, "size_bytes": value["size_bytes"] - 2000 * (event["origin"] == "reference")}}


@pytest.mark.parametrize("drops", [[0.5], [0.0, 0.0], [90.0, -3.0, 0.4]])
@pytest.mark.parametrize("limits", [(None, None), (100_000, 0.5), (5, None)])
def test_plots_of_few_points_and_limits(drops: list[float], limits: tuple[int | None, float | None]) -> None:
    points = tuple(Point(99_000, drop, FRONT) for drop in drops)
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(front_module.plot(Front(points, *limits, None), 56, 6))
    text = console.export_text()
    assert FRONT in text and len(text.splitlines()) == 8
    assert ("─ goal" in text) == (limits != (None, None))

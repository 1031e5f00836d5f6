from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from hirelc.progress import LogToReporter, RichReporter, Silent


def reporter(level: str, terminal: bool) -> tuple[RichReporter, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100, _environ={"TERM": "xterm"})
    return RichReporter(level, console), text


def tell_all(to: RichReporter | Silent) -> None:
    with to.stage("fine-tuning [final]", total=4) as stage:
        for _ in range(4):
            stage.advance()
        stage.update("loss 0.1")
    to.line("cycle 1: [conv1] 12x at 0.3 points")
    to.detail("a detail")
    to.warn("short of the goal")


def test_silent_only_logs_warnings(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.WARNING, logger="hirelc"):
        tell_all(Silent())
    assert caplog.messages == ["short of the goal"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(
    ("level", "line", "detail"), [("quiet", False, False), ("normal", True, False), ("verbose", True, True)]
)
def test_levels(level: str, line: bool, detail: bool, terminal: bool) -> None:
    to, text = reporter(level, terminal)
    tell_all(to)
    said = text.getvalue()
    assert ("cycle 1: [conv1] 12x" in said) == line
    assert ("a detail" in said) == detail
    assert "warning: short of the goal" in said


def test_bars_move_only_in_a_terminal() -> None:
    to, text = reporter("normal", terminal=False)
    tell_all(to)
    assert "\x1b" not in text.getvalue()
    assert text.getvalue().startswith("fine-tuning [final] ...\nfine-tuning [final]: loss 0.1\n")
    to, text = reporter("normal", terminal=True)
    tell_all(to)
    assert "\x1b" in text.getvalue()


def test_a_stage_ends_with_its_error() -> None:
    to, text = reporter("normal", terminal=True)
    with pytest.raises(KeyboardInterrupt), to.stage("search", total=None):
        raise KeyboardInterrupt
    assert text.getvalue().rstrip("\r\n").endswith(("\x1b[?25h", "\x1b[2K"))  # the cursor is back


def test_long_lines_are_not_broken() -> None:
    to, text = reporter("normal", terminal=False)
    to.line("x" * 300)
    assert text.getvalue() == "x" * 300 + "\n"


def test_unknown_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown level"):
        RichReporter("loud")


def test_the_log_reaches_those_who_asked_for_more():
    said: list[str] = []
    reporter = Silent()
    reporter.detail = said.append  # type: ignore[method-assign]
    log = logging.getLogger("hirelc.test")
    log.addHandler(LogToReporter(reporter))
    log.setLevel(logging.INFO)
    log.info("agents earn %d", 3)
    log.debug("not this")
    assert said == ["agents earn 3"]

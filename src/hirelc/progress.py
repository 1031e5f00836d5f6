"""What a run tells people while it goes: stages with bars, one line per cycle, warnings.

The pipeline talks to a `Reporter`; the command line hands it a `RichReporter`, tests and libraries a `Silent` one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

LEVELS = ("quiet", "normal", "verbose")

logger = logging.getLogger("hirelc")


class Stage(Protocol):
    """A piece of work that is under way."""

    def advance(self, n: float = 1) -> None:
        """So much more of the total is done."""

    def update(self, text: str) -> None:
        """A few words on where the work stands, shown beside the bar."""


class Reporter(Protocol):
    """Where a run's words go."""

    def stage(self, title: str, total: float | None = None) -> AbstractContextManager[Stage]:
        """Announces a piece of work; `total` is what its advances sum up to, None when unknown."""

    def line(self, text: str) -> None:
        """One line that a person understands, such as the outcome of a cycle."""

    def detail(self, text: str) -> None:
        """A line for those who asked for more (-v)."""

    def warn(self, text: str) -> None:
        """Something the user should know or mend; shown at every level."""


@runtime_checkable
class Observer(Protocol):
    """Follows a run by the events of its journal. A reporter may be one too."""

    def begin(self, folder: Path) -> None:
        """A run starts, or goes on: its folder. Events that the journal holds already follow first."""

    def event(self, record: Mapping[str, Any]) -> None:
        """One line of the journal, after it was written: "sequence", "time", "event" and the event's own fields."""

    def end(self) -> None:
        """The run is over, however it ended: nothing follows."""


class _SilentStage:
    def advance(self, n: float = 1) -> None:
        pass

    def update(self, text: str) -> None:
        pass


class Silent:
    """Says nothing, but sends warnings to the logger "hirelc"."""

    def stage(self, title: str, total: float | None = None) -> AbstractContextManager[Stage]:
        return nullcontext(_SilentStage())

    def line(self, text: str) -> None:
        pass

    def detail(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        logger.warning(text)


class RichReporter:
    """Bars with time elapsed and left, and lines, on standard error.

    :param level: "quiet" (warnings only), "normal", or "verbose" (details as well)
    :param console: a rich console; None takes standard error. Bars move only in a terminal; elsewhere a stage is one line
    :param plain: lines in a terminal too, and no colours
    :ivar moves: whether bars move
    """

    def __init__(self, level: str = "normal", console: Console | None = None, plain: bool = False) -> None:
        if level not in LEVELS:
            raise ValueError(f"unknown level {level!r}: use {', '.join(LEVELS)}")
        from rich.console import Console as RichConsole  # rich takes a while to import, and a library user may not need it

        self.level = level
        self._console = console or RichConsole(stderr=True, highlight=False, no_color=True if plain else None)
        self.moves = self._console.is_terminal and not self._console.is_dumb_terminal and not plain

    def stage(self, title: str, total: float | None = None) -> AbstractContextManager[Stage]:
        if self.level == "quiet":
            return nullcontext(_SilentStage())
        if self.moves:
            return _BarStage(self._console, title, total)
        return _LineStage(self._console, title)

    def line(self, text: str) -> None:
        if self.level != "quiet":
            self._say(text)

    def detail(self, text: str) -> None:
        if self.level == "verbose":
            self._say(text)

    def warn(self, text: str) -> None:
        self._say(f"warning: {text}", style="yellow")

    def _say(self, text: str, style: str | None = None) -> None:
        # Markup off: a module path in brackets must not be taken for a style. A line is a line, however narrow the screen.
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


class Follower:
    """Turns (words, part done) into advances of whichever stage is under way."""

    def __init__(self) -> None:
        self.stage: Stage | None = None
        self.done = 0.0

    def follow(self, stage: Stage) -> None:
        self.stage, self.done = stage, 0.0

    def __call__(self, text: str, part: float) -> None:
        if self.stage is not None:
            self.stage.update(text)
            self.stage.advance(max(0.0, part - self.done))
            self.done = max(self.done, part)


class LogToReporter(logging.Handler):
    """Shows what the parts of hirelc log for those who asked for more."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(logging.INFO)
        self.reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        self.reporter.detail(record.getMessage())


class _BarStage:
    """One moving bar; it disappears when the stage ends, and what was said above it stays."""

    def __init__(self, console: Console, title: str, total: float | None) -> None:
        from rich.markup import escape
        from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Left

        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            Left(),
            TextColumn("{task.fields[words]}", markup=False),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task(escape(title), total=total, words="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def advance(self, n: float = 1) -> None:
        self._progress.advance(self._task, n)

    def update(self, text: str) -> None:
        self._progress.update(self._task, words=text)


class _LineStage:
    """A stage where nothing can move (a log file, a pipe): its title once, and its last words at the end."""

    def __init__(self, console: Console, title: str) -> None:
        self._console, self._title, self._words = console, title, ""

    def __enter__(self) -> Self:
        self._say(f"{self._title} ...")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._words and kind is None:
            self._say(f"{self._title}: {self._words}")

    def advance(self, n: float = 1) -> None:
        pass

    def update(self, text: str) -> None:
        self._words = text

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

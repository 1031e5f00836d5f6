"""The live view: a frame that stays at the bottom of the terminal while a run goes, and what is said above it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console

from hirelc.live.frame import Frame
from hirelc.live.front import front_of
from hirelc.live.screen import Screen
from hirelc.progress import RichReporter, Stage
from hirelc.report.outlook import UnderWay
from hirelc.report.reading import Json, gathered
from hirelc.report.status import status_of

if TYPE_CHECKING:
    from types import TracebackType

SECONDS_PER_FRAME = 0.5
SAID_AGAIN = 6  # lines, after a resize has wiped the screen


class LiveReporter(RichReporter):
    """A reporter that draws the run it observes. Before and after a run it shows bars and lines as `RichReporter` does.

    :param level: "normal" or "verbose"
    :param console: a terminal; None takes standard error
    """

    def __init__(self, level: str = "normal", console: Console | None = None) -> None:
        super().__init__(level, console)
        # one thread draws, the run's own speaks: whatever they share is touched under the lock
        self._lock = threading.RLock()
        self._screen = Screen(self._console, self._say_again)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._folder: Path | None = None
        self._events: list[Json] = []
        self._stage: LiveStage | None = None
        self._said: deque[tuple[str, str | None]] = deque(maxlen=SAID_AGAIN)

    # -- the run ----------------------------------------------------------------------------------------------

    def begin(self, folder: Path) -> None:
        with self._lock:
            self._folder, self._events, self._stage = folder, [], None
            self._said.clear()
        self._over.clear()
        self._thread = threading.Thread(target=self._keep_drawing, name="hirelc live view", daemon=True)
        self._thread.start()

    def event(self, record: Mapping[str, Any]) -> None:
        with self._lock:
            self._events.append(dict(record))
        self._draw()

    def end(self) -> None:
        """Leaves the last frame where it is, and gives the cursor back."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._lock:
            self._stage = None
            if self._events:
                self._guarded(lambda: self._screen.show(self.frame()))
            self._guarded(self._screen.close)
            self._folder = None

    def frame(self) -> Frame:
        """What is shown now."""
        with self._lock:
            assert self._folder is not None  # there are frames only of runs
            run = gathered(self._folder, self._events)
            alive = not self._over.is_set() and self._events[-1]["event"] != "interrupted"
            stage = self._stage
            at = None if stage is None else stage.under_way()
            words = "" if stage is None else stage.words
            return Frame(status_of(run, datetime.now(UTC), alive, at), front_of(run), at, words)

    # -- what is said -----------------------------------------------------------------------------------------

    def stage(self, title: str, total: float | None = None) -> AbstractContextManager[Stage]:
        return super().stage(title, total) if self._folder is None else LiveStage(self, title, total)

    def at(self, stage: LiveStage | None) -> None:
        """Which piece of work is under way."""
        with self._lock:
            self._stage = stage

    def _say(self, text: str, style: str | None = None) -> None:
        with self._lock:
            self._said.append((text, style))
            self._guarded(lambda: super(LiveReporter, self)._say(text, style))

    # -- drawing ----------------------------------------------------------------------------------------------

    def _keep_drawing(self) -> None:
        while not self._over.wait(SECONDS_PER_FRAME):
            if not self._draw():
                return

    def _draw(self) -> bool:
        """:returns: False where the terminal takes no more; the run does not depend on it"""
        with self._lock:
            return self._guarded(self._show)

    def _show(self) -> None:
        if not self._over.is_set() and self._events:
            self._screen.show(self.frame())

    def _say_again(self) -> None:
        for text, style in self._said:
            super()._say(text, style)

    def _guarded(self, draw: Callable[[], None]) -> bool:
        try:
            draw()
        except (OSError, UnicodeError, ValueError):  # the terminal is gone, or cannot say it
            self._over.set()
            return False
        return True


class LiveStage:
    """A piece of work in the frame."""

    def __init__(self, view: LiveReporter, title: str, total: float | None) -> None:
        self._view, self._title, self._total = view, title, total
        self._done, self._begun, self.words = 0.0, time.monotonic(), ""

    def __enter__(self) -> Self:
        self._begun = time.monotonic()
        self._view.at(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._view.at(None)

    def advance(self, n: float = 1) -> None:
        self._done += n

    def update(self, text: str) -> None:
        self.words = text

    def under_way(self) -> UnderWay:
        part = min(1.0, self._done / self._total) if self._total else None
        return UnderWay(self._title, time.monotonic() - self._begun, part)

"""A picture that stays at the bottom of a terminal, drawn anew in its place, whatever happens to the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.console import Console, ConsoleDimensions, RenderableType
from rich.control import Control
from rich.live import Live


class Screen:
    """Draws when it is told to; has no thread of its own.

    :param above: says again what stood above the picture, after a resize has wiped it away
    """

    def __init__(self, console: Console, above: Callable[[], None] = lambda: None) -> None:
        self._console, self._above = console, above
        self._live: Live | None = None
        self._size = ConsoleDimensions(0, 0)

    def show(self, picture: RenderableType) -> None:
        """:raises OSError: the terminal is gone"""
        size = self._console.size
        if self._live is None:
            self._start(picture)
        elif size.width < self._size.width or size.height < self._size.height:
            # Lines that a narrower terminal broke cannot be taken back one by one.
            self._live.stop()
            self._console.control(Control.clear(), Control.home())
            self._above()
            self._start(picture)
        else:
            self._live.update(picture, refresh=True)
        self._size = size

    def close(self) -> None:
        """Leaves the last picture where it is, and gives the cursor back."""
        if self._live is not None:
            self._live.stop()
        self._live = None

    def _start(self, picture: RenderableType) -> None:
        self._live = Live(
            picture,
            console=self._console,
            auto_refresh=False,
            redirect_stdout=sys.stdout.isatty(),  # what goes to a file goes on going there
            vertical_overflow="crop",
        )
        self._live.start(refresh=True)

"""A run, watched from another terminal: its folder is read again and again until the run has ended."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from hirelc.live.frame import Frame
from hirelc.live.front import front_of
from hirelc.live.screen import Screen
from hirelc.report.reading import read_run
from hirelc.report.status import Status, status_of, status_words
from hirelc.report.timing import State
from hirelc.store import in_use

SECONDS = 1.0


def watch(folder: Path, console: Console | None = None) -> None:
    """Draws in a terminal; elsewhere prints the status at each event. Ends with the run, or with Ctrl-C.

    :raises RunError: the folder holds no run
    """
    console = console or Console(highlight=False)
    screen = Screen(console)
    drawn = console.is_terminal and not console.is_dumb_terminal
    told = -1
    try:
        while True:
            run = read_run(folder)
            found = status_of(run, datetime.now(UTC), in_use(folder))
            if drawn:
                screen.show(Frame(found, front_of(run)))
            elif len(run.events) != told or not _goes_on(found):
                told = len(run.events)
                console.print(status_words(found) + "\n", markup=False, soft_wrap=True)
            if not _goes_on(found):
                return
            time.sleep(SECONDS)
    except KeyboardInterrupt:
        return
    finally:
        screen.close()


def _goes_on(found: Status) -> bool:
    return found.state in (State.RUNNING, State.SILENT)

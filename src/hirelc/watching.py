"""Who follows a run: each event of its journal goes to the observers as well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hirelc.progress import Observer, Reporter
from hirelc.store import RunDirectory


@contextmanager
def watched(directory: RunDirectory, say: Reporter) -> Iterator[None]:
    """While inside, the directory's observers, and the reporter if it observes, get the events of the run.

    Of a run that goes on they get first what its journal holds, so that nobody needs a memory of his own.
    """
    waiting = [*directory.observers, *([say] if isinstance(say, Observer) else [])]
    directory.observers.clear()
    begun: list[Observer] = []
    try:
        for observer in waiting:
            begun.append(observer)
            observer.begin(directory.path)
            for record in directory.events:
                observer.event(record)
        directory.observers += waiting
        yield
    finally:
        directory.observers.clear()
        for observer in begun:
            observer.end()

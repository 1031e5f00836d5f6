"""Who follows a run: each event of its journal goes to the observers as well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hirelc.progress import Observer, Reporter
from hirelc.store import RunDirectory, read_journal


@contextmanager
def watched(directory: RunDirectory, say: Reporter, others: Sequence[Observer] = ()) -> Iterator[None]:
    """While inside, the reporter (if it observes) and the others get the events of the run.

    Of a run that goes on they get first what its journal holds, so that nobody needs a memory of his own.
    """
    observers = [*others, *([say] if isinstance(say, Observer) else [])]
    past = read_journal(directory.path)
    begun = []
    try:
        for observer in observers:
            begun.append(observer)
            observer.begin(directory.path)
            for record in past:
                observer.event(record)
        directory.observers += observers
        yield
    finally:
        directory.observers[:] = [other for other in directory.observers if other not in observers]
        for observer in begun:
            observer.end()

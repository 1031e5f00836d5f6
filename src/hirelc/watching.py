"""Who follows a run: each event of its journal goes to the observers as well, its end by an error included."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from hirelc.errors import ExecutionError, HirelcError, RunError
from hirelc.failures import machine_failure
from hirelc.progress import Observer, Reporter
from hirelc.store import RunDirectory


@contextmanager
def noted(directory: RunDirectory, say: Reporter, command: str) -> Iterator[None]:
    """While inside, the run is watched; what ends it goes into its journal.

    :param command: what goes on from there, as typed before the folder
    :raises ExecutionError: the machine failed
    """
    with watched(directory, say):
        try:
            yield
        except KeyboardInterrupt:
            _note_end(directory, None)
            raise
        except HirelcError as error:
            _note_end(directory, str(error))
            raise
        except (RuntimeError, MemoryError, OSError) as error:
            reason = machine_failure(error)
            if reason is None:
                raise
            _note_end(directory, reason)
            raise ExecutionError(f"{reason}; `{command} {directory.path}` goes on from here") from error


def _note_end(directory: RunDirectory, reason: str | None) -> None:
    with suppress(RunError):  # a full disk, perhaps: what is raised already says more
        directory.journal("interrupted", **({} if reason is None else {"reason": reason}))


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

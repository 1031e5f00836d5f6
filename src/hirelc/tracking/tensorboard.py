"""Scalars for TensorBoard, in the run's own folder. Of a run that goes on they are written anew, from its journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hirelc.errors import RunError
from hirelc.progress import Reporter
from hirelc.tracking.scalars import Scalars, seconds_of

FOLDER = "tensorboard"
MISSING = "TensorBoard is not installed: pip install 'hirelc[tensorboard]'"


def installed() -> bool:
    """Whether one of the libraries that write such files is there; imports none."""
    return find_spec("tensorboard") is not None or find_spec("tensorboardX") is not None


class TensorBoard:
    """:param say: told when nothing more can be written; the run goes on"""

    def __init__(self, say: Reporter) -> None:
        self._say = say
        self._scalars = Scalars()
        self._writer: Any = None

    def begin(self, folder: Path) -> None:
        self._scalars = Scalars()
        self._guarded(lambda: self._open(folder / FOLDER))

    def event(self, record: Mapping[str, Any]) -> None:
        found = self._scalars.of(record)
        if found and self._writer is not None:
            self._guarded(lambda: self._write(record, found))

    def end(self) -> None:
        if self._writer is not None:
            self._guarded(self._writer.close)
        self._writer = None

    def _open(self, folder: Path) -> None:
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = _writer_class()(str(folder))

    def _write(self, record: Mapping[str, Any], found: Any) -> None:
        for scalar in found:
            self._writer.add_scalar(scalar.name, scalar.value, scalar.step, seconds_of(record))
        self._writer.flush()

    def _guarded(self, write: Callable[[], None]) -> None:
        try:
            write()
        # TypeError and AttributeError: how a protobuf that does not fit its library fails
        except (OSError, ImportError, TypeError, AttributeError) as error:
            self._writer = None
            self._say.warn(f"no more scalars for TensorBoard ({type(error).__name__}: {error}); the journal has all of them")


def _writer_class() -> Any:
    """
    :raises RunError: neither library is there
    """
    if find_spec("tensorboard") is not None:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter
    if find_spec("tensorboardX") is not None:
        import tensorboardX

        return tensorboardX.SummaryWriter
    raise RunError(MISSING)

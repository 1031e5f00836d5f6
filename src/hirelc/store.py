"""The run directory: everything a run leaves behind, written as the run goes, so that neither Ctrl-C nor a power cut
loses anything.

journal.jsonl holds one JSON object a line: {"sequence": 0, "time": "...Z", "event": "...", ..., "crc32": "..."}. All
other files are written whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import platform
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hirelc.errors import RunError
from hirelc.journal import JOURNAL as JOURNAL
from hirelc.journal import Journal, sync_folder
from hirelc.journal import read_journal as read_journal
from hirelc.progress import Observer
from hirelc.version import __version__

LOCK, INPUTS = "lock", "inputs.json"
RESERVED_FIELDS = ("sequence", "time", "event", "crc32")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RunDirectory:
    """A folder that belongs to one run. Build it with `create` or `open`.

    :ivar observers: told each event once it is in the journal
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.observers: list[Observer] = []
        self._journal = Journal(path / JOURNAL)

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> RunDirectory:
        """Makes the folder and an empty journal; the run begins with the first event.

        :raises RunError: it holds a run already, or cannot be written
        """
        folder = Path(path)
        check_unused(folder)
        _make(folder)
        (folder / JOURNAL).touch()
        return cls(folder)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunDirectory:
        """A run made before; its journal goes on after the last whole line. What a crash left half written goes.

        :raises RunError: there is no run in that folder, or its journal is damaged
        """
        folder = Path(path)
        read_journal(folder / JOURNAL)
        for left in folder.rglob(".*.tmp"):
            left.unlink(missing_ok=True)
        return cls(folder)

    @property
    def events(self) -> list[dict[str, Any]]:
        """All events so far, oldest first."""
        return self._journal.events

    def event(self, kind: str) -> dict[str, Any] | None:
        """The last event of a kind; None when there is none."""
        return next((event for event in reversed(self.events) if event["event"] == kind), None)

    def journal(self, event: str, **fields: Any) -> None:
        """Appends one event and flushes it to the disk. NaN and infinity become null.

        :raises RunError: a field that JSON cannot hold, a reserved name, or the disk refuses
        """
        taken = [name for name in RESERVED_FIELDS if name in fields]
        if taken:
            raise RunError(f"journal event {event!r}: the field {taken[0]!r} is reserved, call it something else")
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        record = {"time": stamp, "event": event, **_plain(fields, f"journal event {event!r}")}
        try:
            written = self._journal.append(record)
        except OSError as error:
            raise self._refusal(self.path / JOURNAL, error) from error
        for observer in self.observers:
            observer.event(written)

    def journal_once(self, event: str, **fields: Any) -> None:
        """Appends an event unless a run before this one got as far."""
        if self.event(event) is None:
            self.journal(event, **fields)

    def write_json(self, name: str, value: Any) -> Path:
        """Writes a JSON file, whole or not at all. NaN and infinity become null; returns its path."""
        text = json.dumps(_plain(value, name), indent=2, allow_nan=False) + "\n"
        return self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Writes a file, whole or not at all; returns its path.

        :raises RunError: the disk refuses
        """
        path = self.path / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_whole(path, data)
        except OSError as error:
            raise self._refusal(path, error, len(data)) from error
        return path

    def _refusal(self, file: Path, error: OSError, size: int | None = None) -> RunError:
        if error.errno not in NO_ROOM:
            return RunError(f"{file} cannot be written ({error.strerror}): check the folder and its rights")
        wanted = "" if size is None else f"{size:,} bytes wanted, "
        after = f"`hirelc resume {self.path}` goes on from here" if self.events else "start again"
        free = shutil.disk_usage(self.path).free
        return RunError(f"{file} cannot be written ({error.strerror}; {wanted}{free:,} free): make room, then {after}")


@contextlib.contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keeps other processes from writing to a run folder, which is made if need be. The lock dies with the process.

    :raises RunError: another process holds it, or the folder cannot be written
    """
    folder = Path(path)
    _make(folder)
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunError(f"{folder / LOCK} cannot be written ({error.strerror}): check the folder and the space left") from error
    _held.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            who = f"process {holder}" if holder else "another process"
            raise RunError(f"{folder} is being written by {who}: wait until that has ended, or end it") from None
        with contextlib.suppress(OSError):  # a full disk: the lock holds, only the name of its holder is missing
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def in_use(path: str | os.PathLike[str]) -> bool | None:
    """Whether a process writes to a run folder; None where that cannot be told, as of runs made before there were locks."""
    try:
        descriptor = os.open(Path(path) / LOCK, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return None
    finally:
        os.close(descriptor)
    return False


_held: set[int] = set()  # locks of this process


def _drop_locks() -> None:
    """A forked data worker must not keep the lock of a run that was killed."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_drop_locks)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({error.strerror}): choose another folder with --out") from error


def check_unused(path: str | os.PathLike[str]) -> None:
    """A journal without a whole line is none: such a run died before it began.

    :raises RunError: the folder holds a run already, or is a file
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file: choose a folder with --out")
    if has_begun(folder):
        raise RunError(
            f"{folder} already holds a run: `hirelc resume {folder}` goes on with it; else choose another folder with "
            "--out, or remove this one"
        )


def has_begun(folder: Path) -> bool:
    """Whether a folder holds a run that has written its first event."""
    journal = folder / JOURNAL
    return journal.is_file() and b"\n" in journal.read_bytes()


def atomic_write(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file so that a reader, or a crash, sees the old content or the new, never a part.

    :raises RunError: the folder cannot be written
    """
    try:
        _write_whole(Path(path), data)
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror}): check the folder and the space left") from error


def _write_whole(target: Path, data: bytes) -> None:
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def environment() -> dict[str, Any]:
    """What a result may depend on besides its seed. Names neither host, nor user, nor folder."""
    names = ("torch", "numpy", "safetensors", "gymnasium", "stable-baselines3", "torch-pruning")
    return {
        "hirelc": __version__,
        "python": platform.python_version(),
        **{name.replace("-", "_"): _version(name) for name in names},
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _plain(value: Any, where: str) -> Any:
    """The value made of what JSON knows: dicts, lists, strings, numbers; NaN and infinity as null."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "to_json"):
        return _plain(value.to_json(), where)
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value), where)
    if isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str | int)]
        if wrong:
            raise RunError(f"{where}: the key {wrong[0]!r} is no string: JSON cannot hold it")
        return {str(key): _plain(part, where) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, where) for part in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic) or (isinstance(value, torch.Tensor) and value.numel() == 1):
        return _plain(value.item(), where)
    raise RunError(f"{where}: a {type(value).__name__} cannot be written as JSON: turn it into numbers, strings or lists")

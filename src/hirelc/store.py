"""The run directory: everything a run leaves behind, written as the run goes, so that Ctrl-C loses nothing.

journal.jsonl holds one JSON object a line: {"sequence": 0, "time": "...Z", "event": "...", ...}. All other files are
written whole or not at all.
"""

from __future__ import annotations

import json
import math
import os
import platform
import secrets
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hirelc.errors import RunError
from hirelc.progress import Observer
from hirelc.version import __version__

JOURNAL = "journal.jsonl"
RESERVED_FIELDS = ("sequence", "time", "event")


class RunDirectory:
    """A folder that belongs to one run. Build it with `create` or `open`.

    :ivar observers: told each event once it is in the journal
    """

    def __init__(self, path: Path, next_sequence: int) -> None:
        self.path = path
        self.observers: list[Observer] = []
        self._sequence = next_sequence

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> RunDirectory:
        """Makes the folder and an empty journal.

        :raises RunError: it holds a run already, or cannot be written
        """
        folder = Path(path)
        check_unused(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / JOURNAL).touch(exist_ok=False)
        except OSError as error:
            raise RunError(f"{folder} cannot be written ({error.strerror}): choose another folder with --out") from error
        return cls(folder, 0)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunDirectory:
        """A run made before; its journal goes on after the last whole line.

        :raises RunError: there is no run in that folder
        """
        folder = Path(path)
        events = read_journal(folder / JOURNAL)
        data = (folder / JOURNAL).read_bytes()
        if data and not data.endswith(b"\n"):
            # A line torn by a crash would swallow the next one.
            os.truncate(folder / JOURNAL, data.rfind(b"\n") + 1)
        return cls(folder, events[-1]["sequence"] + 1 if events else 0)

    def journal(self, event: str, **fields: Any) -> None:
        """Appends one event and flushes it to the system. NaN and infinity become null.

        :raises RunError: a field that JSON cannot hold, or a reserved name
        """
        taken = [name for name in RESERVED_FIELDS if name in fields]
        if taken:
            raise RunError(f"journal event {event!r}: the field {taken[0]!r} is reserved, call it something else")
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        record = {"sequence": self._sequence, "time": stamp, "event": event, **_plain(fields, f"journal event {event!r}")}
        line = json.dumps(record, allow_nan=False) + "\n"
        with (self.path / JOURNAL).open("a", encoding="utf-8") as file:
            file.write(line)
        self._sequence += 1
        for observer in self.observers:
            observer.event(record)

    def write_json(self, name: str, value: Any) -> Path:
        """Writes a JSON file, whole or not at all. NaN and infinity become null; returns its path."""
        text = json.dumps(_plain(value, name), indent=2, allow_nan=False) + "\n"
        return self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Writes a file, whole or not at all; returns its path."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, data)
        return path


def check_unused(path: str | os.PathLike[str]) -> None:
    """:raises RunError: the folder holds a run already, or is a file"""
    folder = Path(path)
    if (folder / JOURNAL).exists():
        raise RunError(f"{folder} already holds a run: choose another folder with --out, or remove it")
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file: choose a folder with --out")


def atomic_write(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file so that a reader, or a crash, sees the old content or the new, never a part.

    :raises RunError: the folder cannot be written
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise RunError(f"{target} cannot be written ({error.strerror}): check the folder and the space left") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_journal(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The events of a journal (the file or its run folder), oldest first. A last line cut short by a crash is left out.

    :raises RunError: there is no journal, or a line other than the last is damaged
    """
    file = Path(path) / JOURNAL if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise RunError(f"{file}: no journal there: name the folder of a run")
    lines = file.read_bytes().split(b"\n")
    events = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            events.append(json.loads(line))
        except ValueError as error:
            raise RunError(f"{file}: line {number} is damaged: restore the journal or leave that line out") from error
    return events


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

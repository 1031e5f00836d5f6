"""The journal of a run: append-only, one event a line, each with a checksum, flushed to the disk before it counts.

A line is a JSON object whose last field is the CRC-32 of the line without that field. Journals of hirelc 0.1 before
checksums are read as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hirelc.errors import RunError

JOURNAL = "journal.jsonl"
SEARCHED, ADDED = "measurement", "front"  # events: a measurement of the search, and one added to the front afterwards
_SEAL = re.compile(rb', "crc32": "([0-9a-f]{8})"\}$')


class Journal:
    """A journal that is written to; what a crash tore off its end is cut away first.

    :ivar events: what it held when it was opened, and all that was appended since
    :raises RunError: a line that is not the last is damaged
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[dict[str, Any]] = []
        self._size = 0
        self._mend()

    def append(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Adds one event; `sequence` is put in front. When this returns, a power cut cannot undo it.

        :returns: the event as it will be read
        :raises OSError: the disk refused; the journal is as it was
        """
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            if os.fstat(descriptor).st_size != self._size:  # an append before this one was interrupted
                self._mend()
            event = {"sequence": len(self.events), **record}
            line = _sealed(json.dumps(event, allow_nan=False))
            try:
                _write(descriptor, line)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, self._size)
                raise
            self._size += len(line)
            self.events.append(json.loads(json.dumps(event)))
        finally:
            os.close(descriptor)
        if event["sequence"] == 0:
            sync_folder(self.path.parent)
        return self.events[-1]

    def _mend(self) -> None:
        data = self.path.read_bytes() if self.path.exists() else b""
        self.events, self._size = _parse(data, self.path)
        if len(data) > self._size:
            os.truncate(self.path, self._size)


def read_journal(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The events of a journal (the file or its run folder), oldest first. A last line torn by a crash is left out.

    :raises RunError: there is no journal, or a line other than the last is damaged
    """
    file = Path(path) / JOURNAL if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise RunError(f"{file}: no journal there: name the folder of a run")
    return _parse(file.read_bytes(), file)[0]


def sync_folder(folder: Path) -> None:
    """Makes names in a folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(descriptor: int, line: bytes) -> None:
    left = memoryview(line)
    while left:
        left = left[os.write(descriptor, left) :]
    os.fsync(descriptor)


def _sealed(text: str) -> bytes:
    body = text.encode()
    return body[:-1] + b', "crc32": "%08x"}\n' % zlib.crc32(body)


def _parse(data: bytes, file: Path) -> tuple[list[dict[str, Any]], int]:
    """The events, and how many bytes they take; what comes after is the torn end."""
    lines = data.split(b"\n")[:-1]
    with_seals = any(_SEAL.search(line) for line in lines)
    events: list[dict[str, Any]] = []
    size = 0
    for number, line in enumerate(lines, start=1):
        try:
            event = _event(line, with_seals)
        except ValueError as error:
            if number == len(lines):
                break
            raise RunError(f"{file}: line {number} is damaged: restore the journal from a copy") from error
        if with_seals and event["sequence"] != number - 1:
            raise RunError(f"{file}: line {number} is event {event['sequence']}: lines are missing; restore the journal")
        events.append(event)
        size += len(line) + 1
    return events, size


def _event(line: bytes, with_seal: bool) -> dict[str, Any]:
    """:raises ValueError: damaged"""
    if with_seal:
        seal = _SEAL.search(line)
        if seal is None:
            raise ValueError("no checksum")
        line = line[: seal.start()] + b"}"
        if zlib.crc32(line) != int(seal[1], 16):
            raise ValueError("the checksum differs")
    found: dict[str, Any] = json.loads(line)
    return found

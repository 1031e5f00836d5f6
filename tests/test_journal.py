"""The journal: what is written stays, what is damaged is noticed, what was torn off is cut away."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from hirelc import journal as module
from hirelc.errors import RunError
from hirelc.journal import JOURNAL, Journal, read_journal
from hirelc.store import LOCK, RunDirectory, locked


def written(folder: Path, count: int = 4) -> Path:
    journal = Journal(folder / JOURNAL)
    for number in range(count):
        journal.append({"event": f"e{number}", "value": number / 3})
    return folder / JOURNAL


def test_each_line_is_json_with_a_checksum(tmp_path: Path) -> None:
    file = written(tmp_path)
    for number, line in enumerate(file.read_text().splitlines()):
        assert list(json.loads(line)) == ["sequence", "event", "value", "crc32"]
        assert json.loads(line)["value"] == number / 3
    assert read_journal(tmp_path) == Journal(file).events
    assert all("crc32" not in event for event in read_journal(tmp_path))


def test_any_changed_byte_is_noticed_and_its_line_named(tmp_path: Path) -> None:
    file = written(tmp_path)
    whole = file.read_bytes()
    lengths = [len(line) + 1 for line in whole.split(b"\n")]
    for at in range(sum(lengths[:3]) - 1):
        changed = bytearray(whole)
        changed[at] ^= 1
        file.write_bytes(changed)
        line = 1 + (at >= lengths[0]) + (at >= lengths[0] + lengths[1])
        with pytest.raises(RunError, match=rf"line {line} is damaged"):
            read_journal(file)
    file.write_bytes(whole[: lengths[0]] + whole[lengths[0] + lengths[1] :])
    with pytest.raises(RunError, match=r"line 2 is event 2: lines are missing"):
        read_journal(file)


def test_whatever_is_torn_off_the_end_costs_one_event_at_most(tmp_path: Path) -> None:
    file = written(tmp_path)
    whole = file.read_bytes()
    last = len(whole.rsplit(b"\n", 2)[1]) + 1
    for torn in range(1, last):
        for left in (b"", b"\0" * 5, b"\0\n"):  # a power cut may leave the length and not the content
            file.write_bytes(whole[:-torn] + left)
            assert [event["event"] for event in read_journal(file)] == ["e0", "e1", "e2"]
    journal = Journal(file)
    journal.append({"event": "next"})
    assert [(e["sequence"], e["event"]) for e in read_journal(file)][2:] == [(2, "e2"), (3, "next")]


def test_journals_without_checksums_are_read(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text('{"sequence": 0, "event": "start"}\n{"sequence": 1, "event": "result"}\n')
    assert [event["event"] for event in read_journal(tmp_path)] == ["start", "result"]


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory.create(tmp_path)
    run.journal("one")
    before = (tmp_path / JOURNAL).read_bytes()
    honest = os.write

    def full(descriptor: int, data: Any) -> int:
        if len(data) <= 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return honest(descriptor, data[:10])

    monkeypatch.setattr(module.os, "write", full)
    with pytest.raises(RunError, match=rf"No space left on device; [\d,]+ free.*`hirelc resume {tmp_path}` goes on"):
        run.journal("two")
    assert (tmp_path / JOURNAL).read_bytes() == before
    monkeypatch.undo()
    run.journal("two")
    assert [(e["sequence"], e["event"]) for e in read_journal(tmp_path)] == [(0, "one"), (1, "two")]


def test_an_append_that_ctrl_c_cut_short_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory.create(tmp_path)
    run.journal("one")
    honest = os.write
    for part, others in ((10, 0), (None, 1)):  # a part of the line, the whole line

        def cut_short(descriptor: int, data: Any, part: int | None = part) -> int:
            honest(descriptor, data[:part])
            raise KeyboardInterrupt

        monkeypatch.setattr(module.os, "write", cut_short)
        with pytest.raises(KeyboardInterrupt):
            run.journal("two")
        monkeypatch.undo()
        run.journal("interrupted")
        events = read_journal(tmp_path)
        assert [event["sequence"] for event in events] == list(range(len(events)))
        assert [event["event"] for event in events].count("two") == others
        assert run.events == events


def test_two_processes_cannot_write_to_one_run(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    holder = os.fork()
    if holder == 0:
        os.setpgid(0, 0)
        with locked(tmp_path):
            os.fork()  # a data worker that outlives the run
            os.write(writing, b"held")
            time.sleep(30)
        os._exit(0)
    try:
        assert os.read(reading, 8).startswith(b"held")
        with pytest.raises(RunError, match=rf"being written by process {holder}"), locked(tmp_path):
            pass
        os.kill(holder, 9)  # its lock goes with it, although a child of it lives
        os.waitpid(holder, 0)
        with locked(tmp_path):
            assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"
            with pytest.raises(RunError, match=rf"process {os.getpid()}"), locked(tmp_path):
                pass
    finally:
        os.killpg(holder, 9)
        os.close(reading)
        os.close(writing)


def test_what_a_crash_left_half_written_goes(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path).journal("start")
    (tmp_path / "candidates").mkdir()
    left = tmp_path / "candidates" / ".000.hirelc.0a0b0c0d.tmp"
    left.write_bytes(b"half")
    RunDirectory.open(tmp_path)
    assert not left.exists()
    assert time.time() - (tmp_path / JOURNAL).stat().st_mtime < 60

"""Ways to change a copy of a run's folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Edit = Callable[[list[dict[str, Any]]], None]


def edit_journal(folder: Path, edit: Edit) -> None:
    """Lets a function change the events of a run, in place."""
    events = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    for event in events:
        event.pop("crc32", None)
    edit(events)
    (folder / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def cut(folder: Path, events: int) -> Path:
    """Leaves what a run that died after so many events would have left."""
    journal = folder / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:events]))
    kinds = [json.loads(line)["event"] for line in lines[:events]]
    if "result" not in kinds:
        (folder / "result.json").unlink()
    if "final" not in kinds:
        (folder / "model.hirelc").unlink()
    for file in (folder / "candidates").iterdir():
        kept = "final" in kinds if file.stem == "final" else int(file.stem) < kinds.count("measurement")
        if not kept:
            file.unlink()
    return folder

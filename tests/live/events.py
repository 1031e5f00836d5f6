"""A run in a few events, and a screen that shows what a terminal would."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyte
from rich.console import Console

from hirelc.progress import Observer

START = datetime.now(UTC) - timedelta(minutes=5)


def measured(size: int, drop: float, failure: str | None = None, fidelity: str = "full") -> dict[str, Any]:
    return {
        "size_bytes": size,
        "accuracy": 90 - drop,
        "drop_points": drop,
        "images_seen": 1000,
        "seconds": 10.0,
        "failure": failure,
        "fidelity": fidelity,
        "macs": 1000,
    }


def measurement(cycle: int, origin: str, value: dict[str, Any], predicted: float = 0.5) -> dict[str, Any]:
    return {
        "event": "measurement",
        "cycle": cycle,
        "origin": origin,
        "measurement": value,
        "learned": {"predicted_drop": predicted},
    }


def whole_run() -> list[dict[str, Any]]:
    """The journal of a finished run of two cycles, with one rejected candidate."""
    events = [
        {
            "event": "start",
            "goal": {"ratio": 10, "max_drop": 0.5, "max_bytes": None},
            "train": 500,
            "validation": 100,
            "test": 200,
        },
        {"event": "network", "original_bytes": 1_000_000, "blocks": []},
        {"event": "baseline", "accuracy": 90.0},
        {"event": "sensitivity", "samples": 32},
        {"event": "proxy"},
        measurement(0, "reference", measured(99_000, 1.2)),
        measurement(0, "vote", measured(98_000, 0.9)),
        measurement(1, "vote", measured(98_500, 40.0, "Diverged: the loss became nan")),
        measurement(1, "vote", measured(97_000, 0.4)),
        {"event": "pick", "policy": "abc"},
        {"event": "final", "size_bytes": 97_000, "accuracy": 89.9, "trained": {"images": 5000, "seconds": 40.0, "scores": []}},
        {"event": "control", "accuracy": 90.1, "trained": {"images": 5000, "seconds": 40.0, "scores": []}},
        {"event": "test", "scores": [89.0, 89.1, 88.9]},
        {"event": "result", "met": True},
    ]
    times = [(START + timedelta(seconds=20 * i)).isoformat() for i in range(len(events))]
    return [{"sequence": i, "time": time, **event} for i, (time, event) in enumerate(zip(times, events, strict=True))]


CONFIG = {"search": {"cycles": 2}, "train": {"images": 10_000, "search_share": 0.3}}


def folder_of(path: Path) -> Path:
    """A run folder with its settings."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(CONFIG))
    return path


def replay(observer: Observer, folder: Path, count: int) -> None:
    observer.begin(folder_of(folder))
    for event in whole_run()[:count]:
        observer.event(event)


class Terminal:
    """What a console writes, and what is then seen."""

    def __init__(self, width: int = 90, height: int = 30, environment: dict[str, str] | None = None) -> None:
        self.file = io.StringIO()
        self.console = Console(
            file=self.file, force_terminal=True, width=width, height=height, _environ={"TERM": "xterm", **(environment or {})}
        )
        self._screen = pyte.Screen(width, height)
        self._screen.set_mode(pyte.modes.LNM)  # no terminal driver turns line feeds into new lines here
        self._stream, self._read = pyte.Stream(self._screen), 0

    def resize(self, width: int, height: int) -> None:
        self.text()
        self._screen.resize(height, width)
        self.console.size = (width, height)  # type: ignore[assignment]

    def text(self) -> str:
        self._stream.feed(self.file.getvalue()[self._read :])
        self._read = len(self.file.getvalue())
        return "\n".join(line.rstrip() for line in self._screen.display).strip()

    @property
    def cursor_hidden(self) -> bool:
        self.text()
        return bool(self._screen.cursor.hidden)

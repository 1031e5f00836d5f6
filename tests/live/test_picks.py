"""Runs without a search of their own, and fronts that are extended after the end, as the view and the status tell them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hirelc.live.front import front_of
from hirelc.live.view import LiveReporter
from hirelc.report.charts.front import front_rows
from hirelc.report.content import content
from hirelc.report.outlook import UnderWay, seconds_left
from hirelc.report.reading import Run, gathered, moment
from hirelc.report.status import status_of, status_words
from hirelc.report.steps import steps
from hirelc.report.timing import seconds_spent
from live.events import Terminal, folder_of, measured, measurement, whole_run


def a_pick() -> list[dict[str, Any]]:
    """The journal of a pick: the one measurement that its fine-tune began with, and no cycles."""
    whole = whole_run()
    start = {**whole[0], "picked_from": "runs/mine", "start_candidate": 2}
    moved = measurement(0, "picked", {**measured(99_500, 4.0, fidelity="calibrated"), "images_seen": 0})
    pick = {"event": "pick", "policy": "abc", "candidate": 0, "search_seconds": 0.0}
    events = [start, *whole[1:5], moved, pick, *whole[10:]]
    times = [(moment(whole[0]) + timedelta(seconds=20 * i)).isoformat() for i in range(len(events))]
    return [{**event, "sequence": i, "time": time} for i, (event, time) in enumerate(zip(events, times, strict=True))]


def cut(folder: Path, count: int) -> Run:
    return gathered(folder_of(folder), a_pick()[:count])


def test_a_pick_is_told_as_one(tmp_path: Path) -> None:
    run = cut(tmp_path / "pick", 7)
    words = status_words(status_of(run, datetime.now(UTC), alive=True))
    assert "running, now in the final fine-tune" in words and "search    none: picked from runs/mine" in words
    early = status_words(status_of(cut(tmp_path / "pick", 5), datetime.now(UTC), alive=False))
    assert "died, while moving a candidate to the goal" in early and "go on     hirelc resume" in early
    terminal = Terminal()
    view = LiveReporter(console=terminal.console)
    view.begin(folder_of(tmp_path / "pick"))
    for event in a_pick()[:7]:
        view.event(event)
    text = terminal.text()
    view.end()
    assert "from  runs/mine, without a search" in text and "cycle" not in text
    page = content(run, datetime.now(UTC))
    assert "nothing was searched, a candidate of runs/mine was moved" in page.slots["votes"].missing
    labels = [row["point"] for row in front_rows(run, steps(run))]
    assert "picked from another run, candidate 1" in labels


def test_the_time_of_a_pick_is_told_by_its_fine_tune(tmp_path: Path) -> None:
    run = cut(tmp_path, 7)
    now = moment(run.events[-1])
    assert seconds_left(run, now) is None
    half, nearly = (seconds_left(run, now, UnderWay("final fine-tune", 100.0, part)) for part in (0.5, 0.8))
    # what is left of it, a control that is a little faster and evaluated once, three readings of a split twice as large
    assert half == pytest.approx(100 + 0.9 * 200 + 20 + 3 * 20 * 2)
    assert nearly == pytest.approx(25 + 0.9 * 125 + 20 + 3 * 20 * 2)
    last = cut(tmp_path, 9)
    left = seconds_left(last, moment(last.events[-1]))
    assert left == pytest.approx(3 * 20 * 2)


def test_what_is_measured_after_the_cycles_is_of_none(tmp_path: Path) -> None:
    late = measurement(2, "swap", measured(97_500, 0.3, fidelity="short"))
    events = [*whole_run()[:9], {**late, "sequence": 9, "time": whole_run()[9]["time"]}]
    found = status_of(gathered(folder_of(tmp_path), events), datetime.now(UTC), alive=True)
    assert found.events[-1].endswith(", after the cycles (swap): 97,500 bytes, +0.30 points lost")
    assert found.cycles == (2, 2)


def test_a_front_that_is_extended_after_the_end(tmp_path: Path) -> None:
    folder, whole = folder_of(tmp_path / "run"), whole_run()
    late = moment(whole[-1]) + timedelta(hours=9)
    more = {"event": "front", "candidate": "front-000", "origin": "front", "measurement": measured(60_000, 2.0), "policy": None}
    events = [*whole, {**more, "sequence": len(whole), "time": late.isoformat()}]
    run = gathered(folder, events)
    assert len(front_of(run).points) == len(front_of(gathered(folder, whole)).points) + 1
    assert "afterwards, candidate 1" in [row["point"] for row in front_rows(run, steps(run))]
    assert seconds_spent(run) == seconds_spent(gathered(folder, whole))
    terminal = Terminal()
    view = LiveReporter(console=terminal.console)
    view.begin(folder)
    for event in events:
        view.event(event)
    with view.stage("point 2 of 3: 24.0x", 100) as stage:
        stage.advance(40)
        view.event({**events[-1], "event": "note"})
        text = terminal.text()
    view.end()
    assert "state finished, the goal is met" in text and "now   point 2 of 3: 24.0x" in text and "run   " not in text

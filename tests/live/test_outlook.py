from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hirelc.report.outlook import UnderWay, seconds_left
from hirelc.report.reading import Run, gathered, moment
from hirelc.report.words import about
from live.events import CONFIG, folder_of, measured, measurement, whole_run


def cut(tmp_path: Path, count: int) -> Run:
    return gathered(folder_of(tmp_path), whole_run()[:count])


def left(run: Run, later: float = 0.0, at: UnderWay | None = None) -> float | None:
    return seconds_left(run, moment(run.events[-1]) + timedelta(seconds=later), at)


def test_nothing_is_said_before_something_is_known(tmp_path: Path) -> None:
    assert all(left(cut(tmp_path, count)) is None for count in range(1, 6))
    assert seconds_left(gathered(tmp_path, []), moment(whole_run()[0])) is None
    assert left(cut(tmp_path, len(whole_run()))) is None  # it has finished


def test_the_first_bar_tells_first(tmp_path: Path) -> None:
    run = cut(tmp_path, 5)
    assert left(run, at=UnderWay("cycle 1/2: agents", 5.0, 0.5)) is None
    early, late = (left(run, at=UnderWay("measuring candidate 1", 10.0, part)) for part in (0.25, 0.5))
    assert early is not None and late is not None and early == pytest.approx(2 * late, rel=0.5)


def test_time_left_falls_as_the_run_goes(tmp_path: Path) -> None:
    said = [left(cut(tmp_path, count)) for count in range(6, len(whole_run()))]
    known = [seconds for seconds in said if seconds is not None]
    assert len(known) >= 6 and known[0] > known[-1] >= 0
    assert known[0] == max(known)
    run = cut(tmp_path, 7)
    now, later, much_later = (left(run, seconds) for seconds in (0, 10, 10_000))
    assert now is not None and later is not None and much_later is not None
    assert now - later == pytest.approx(10) and 0 < much_later < later  # what is ahead remains


def test_the_final_fine_tune_goes_by_its_bar(tmp_path: Path) -> None:
    run = cut(tmp_path, 10)
    half = left(run, at=UnderWay("final fine-tune", 100.0, 0.5))
    nearly = left(run, at=UnderWay("final fine-tune", 100.0, 0.9))
    assert half is not None and nearly is not None and half - nearly == pytest.approx(100 - 100 / 9, abs=0.1)


def test_cycles_of_several_measurements_and_breaks(tmp_path: Path) -> None:
    """Policies that are only tried end no cycle, and a night before a resume is no part of one."""
    events: list[dict[str, Any]] = whole_run()[:6]
    for cycle in (0, 1):
        for fidelity in ("calibrated", "short", "full"):
            events.append(measurement(cycle, "vote", measured(98_000, 0.5, fidelity=fidelity)))
    base = moment(events[0])
    for number, event in enumerate(events):
        event |= {"sequence": number, "time": (base + timedelta(seconds=20 * number)).isoformat()}
    run = gathered(folder_of(tmp_path), events[:9])
    (tmp_path / "config.json").write_text('{"search": {"cycles": 5, "trials": 4}, "train": {"images": 10000}}')
    without = left(gathered(tmp_path, run.events))
    night = [*events[:8], {"event": "resumed", "sequence": 99, "time": (base + timedelta(hours=9)).isoformat()}, events[8]]
    night[-1] = {**night[-1], "sequence": 100, "time": (base + timedelta(hours=9, seconds=20)).isoformat()}
    with_night = left(gathered(tmp_path, night))
    assert without is not None and with_night is not None
    assert with_night == pytest.approx(without, rel=0.2)


def test_runs_without_training(tmp_path: Path) -> None:
    (folder_of(tmp_path) / "config.json").write_text('{"calibrate_only": true, "search": {"cycles": 2}}')
    run = gathered(tmp_path, whole_run()[:7])
    assert left(run) == pytest.approx(20 + 20 + 2 * 20 * 2, abs=25)  # a cycle, the file's evaluation, the test split


def test_a_run_that_was_given_a_time_goes_by_it(tmp_path: Path) -> None:
    (folder_of(tmp_path) / "config.json").write_text('{"train": {"seconds": 300}, "search": {"cycles": 2}}')
    assert left(gathered(tmp_path, whole_run()[:4]), later=30) == pytest.approx(300 - 3 * 20 - 30)


def test_a_run_may_end_with_its_best_measurement(tmp_path: Path) -> None:
    long = left(cut(tmp_path, 10))
    (folder_of(tmp_path) / "config.json").write_text('{"train": {"images": 10000, "final": false}, "search": {"cycles": 2}}')
    short = left(gathered(tmp_path, whole_run()[:10]))
    assert long is not None and short is not None and long - short > 40


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "5 s"), (41, "40 s"), (58, "1 min"), (545, "9 min"), (3601, "1 h 00 min"), (4900, "1 h 20 min")]
)
def test_estimates_are_no_more_exact_than_they_are(seconds: float, words: str) -> None:
    assert about(seconds) == words


def test_the_settings_that_the_estimate_goes_by_are_there() -> None:
    from hirelc.config import Config

    stored = Config().to_json()
    for part, names in CONFIG.items():
        assert set(names) <= set(stored[part])
    assert {"calibrate_only"} <= set(stored) and {"control", "search_share"} <= set(stored["train"])

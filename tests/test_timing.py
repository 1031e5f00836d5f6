from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hirelc.errors import RunError
from hirelc.timing import Pace, Search, Speeds, TimeBudget, TimePlan, parse_time, plan_time, time_words

SPEEDS = Speeds(image=0.002, control_image=0.001, measurement=3.0, ending=8.0, agent_step=0.02)
OPTIONS = [
    Search(cycles, trials, steps, 1 + cycles * (1 if trials == 1 else 7), 1 + cycles * (1 if trials == 1 else 1.3))
    for cycles in (4, 3, 2, 1)
    for trials in (4, 1)
    for steps in (768, 192)
]


class FakeClock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20m", 1200), ("90s", 90), ("1h30m", 5400), ("1.5h", 5400), (" 2H 5min ", 7500), ("1h1m1s", 3661), ("0.5m", 30)],
)
def test_times_as_people_say_them(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "20", "m", "-5m", "0s", "1d", "5m1h", "twenty", "1e3s", "nanh"])
def test_what_is_no_time_is_one_clear_line(text: str) -> None:
    with pytest.raises(RunError, match="as in 20m, 90s or 1h30m") as caught:
        parse_time(text)
    assert "\n" not in str(caught.value)


@given(st.floats(1, 1e5))
def test_words_can_be_parsed_again(seconds: float) -> None:
    assert parse_time(time_words(seconds)) == pytest.approx(seconds, abs=0.51)


def budget(seconds: float, spent: float = 10.0) -> TimeBudget:
    clock = FakeClock()
    made = TimeBudget(seconds, clock)
    clock.now += spent
    return made


@given(st.floats(60, 20_000), st.floats(1, 20))
def test_a_plan_fills_the_time_and_not_more(seconds: float, slow: float) -> None:
    speeds = Speeds(0.002 * slow, 0.001 * slow, 3.0, 8.0, 0.02)
    try:
        plan = plan_time(budget(seconds), speeds, OPTIONS, 0.3, 128, 256)
    except RunError as error:
        needed = parse_time(str(error).rpartition("--time ")[2])
        assert needed > seconds  # and with what it asks for, it works
        assert plan_time(budget(needed), speeds, OPTIONS, 0.3, 128, 256).search == OPTIONS[-1]
        return
    assert plan.search_seconds + plan.final_seconds <= seconds - 10
    assert plan.search_seconds + plan.final_seconds > 0.94 * (seconds - 10) - 1
    assert (0.3 * plan.images - 256) / plan.search.trainings >= 128 - 1
    assert TimePlan.from_json({**json.loads(json.dumps(plan.to_json())), "event": "time_plan"}) == plan


def test_more_time_searches_more() -> None:
    plans = [plan_time(budget(60 * minutes), SPEEDS, OPTIONS, 0.3, 128, 256) for minutes in (1.5, 2, 4, 8, 20, 60)]
    cycles = [plan.search.cycles for plan in plans]
    assert cycles == sorted(cycles) and cycles[0] == 1 and plans[-1].search == OPTIONS[0]
    images = [plan.images for plan in plans]
    assert images == sorted(images)
    assert all(p.search.overhead(SPEEDS) <= 0.36 * (p.seconds - 10) for p in plans[1:])


def test_a_machine_that_gets_slower_measures_less_and_still_ends_in_time() -> None:
    clock = FakeClock()
    plan = plan_time(TimeBudget(600, clock), SPEEDS, OPTIONS, 0.3, 128, 256)
    watched = Pace(TimeBudget(600, clock), plan)
    images = int((0.3 * plan.images - 256) / plan.search.trainings)
    measured = 0
    while measured < plan.search.measurements and watched.fits(images):
        took = 3 * (SPEEDS.measurement + images * SPEEDS.image)
        clock.now += took
        watched.observe(images, took)
        measured += 1
    assert 0 < measured < plan.search.measurements and watched.ratio == pytest.approx(3)
    final = watched.final_images(128)
    assert final % 128 == 0 and final > 128
    clock.now += 3 * (final * SPEEDS.final_image + SPEEDS.ending)
    assert 540 < clock.now - 100 <= 600


def test_a_time_that_is_over_still_trains_a_batch() -> None:
    clock = FakeClock()
    plan = plan_time(TimeBudget(600, clock), SPEEDS, OPTIONS, 0.3, 128, 256)
    late = Pace(TimeBudget(600, clock), plan)
    clock.now += 10_000
    assert late.final_images(128) == 128 and not late.fits(128)


def test_what_an_earlier_part_of_a_run_took_counts() -> None:
    clock = FakeClock()
    resumed = TimeBudget(100, clock, before=60)
    clock.now += 30
    assert (resumed.spent, resumed.left) == (90, 10)


def test_no_time_is_no_budget() -> None:
    with pytest.raises(RunError, match="above 0"):
        TimeBudget(0)

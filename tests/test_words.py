from __future__ import annotations

from pathlib import Path

import pytest

from hirelc.policy import Choice, Goal, Policy
from hirelc.results import Result, Row
from hirelc.words import count, duration, goal_words, kept_words, result_words, table


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0"), (640, "640"), (1000, "1.00 k"), (113_000, "113 k"), (999_600, "1.00 M"), (23.8e6, "23.8 M"), (4.1e9, "4.10 G")],
)
def test_large_numbers_have_three_digits(number: float, words: str) -> None:
    assert count(number) == words


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7500, "2 h 05 min")])
def test_durations_are_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_columns_line_up() -> None:
    assert table(("", "bytes"), [("a", "1"), ("long", "1,000")]).splitlines() == [
        "      bytes",
        "----  -----",
        "a         1",
        "long  1,000",
    ]


def result(test: bool, shortfall: str | None) -> Result:
    def row(name: str, accuracy: float, size: int) -> Row:
        return Row(name, size, 1000 / size, accuracy, accuracy - 1 if test else None, 5000, 250, 61.0)

    return Result(
        folder=Path("runs/x"),
        path=Path("runs/x/model.hirelc"),
        goal=Goal(ratio=10, max_drop=0.5),
        policy=Policy.of({"a": Choice()}),
        original=row("original", 91, 1000),
        control=row("control", 92, 1000),
        compressed=row("compressed", 91.75, 100),
        measurements=(),
        images_seen=1,
        shortfall=shortfall,
    )


def test_the_loss_is_against_the_better_of_original_and_control() -> None:
    words = result_words(result(test=True, shortfall=None), "hirelc next")
    assert "0.25 points on the test split, against the better of original and control, here the control" in words
    assert "at least 10x smaller, at most 0.5 points lost: met" in words and words.endswith("next   hirelc next")
    assert words.splitlines()[4].split() == [
        "compressed",
        "100",
        "10.00x",
        "90.75",
        "91.75",
        "5.00",
        "k",
        "250",
        "1",
        "min",
        "01",
        "s",
    ]


def test_what_is_missing_is_said() -> None:
    words = result_words(result(test=False, shortfall="too big"))
    assert "search-validation split (no test split was given)" in words
    assert "NOT MET, short of the goal: too big; the file holds the closest policy found" in words
    assert goal_words(Goal(max_bytes=60_000)) == "at most 60,000 bytes"


def test_what_an_interrupted_run_keeps(tmp_path: Path) -> None:
    assert kept_words(tmp_path) == "nothing was written yet"
    for name in ("one", "two"):
        (tmp_path / name / "candidates").mkdir(parents=True)
        (tmp_path / name / "journal.jsonl").touch()
    (tmp_path / "one" / "model.hirelc").touch()
    (tmp_path / "two" / "candidates" / "000.hirelc").touch()
    words = kept_words(tmp_path)
    assert f"{tmp_path / 'one'} keeps its journal.jsonl, the finished {tmp_path / 'one' / 'model.hirelc'}; " in words
    assert f"1 measured candidate in {tmp_path / 'two' / 'candidates'}" in words and "hirelc evaluate" in words

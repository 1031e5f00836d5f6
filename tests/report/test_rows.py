"""From the journal to the rows that charts and tables show."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hirelc.artifact.inspect import open_file
from hirelc.config import SearchConfig
from hirelc.policy import Budget, Choice, Granularity, NumberType
from hirelc.precision import nominal_bits, with_precision
from hirelc.report import decisions
from hirelc.report.kernels import kernels
from hirelc.report.reading import Run, read_run
from hirelc.report.steps import best_so_far, byte_limit, on_front, picked, policy_words, steps
from hirelc.report.timing import AGENTS, MEASURING, State, seconds_spent, spans, state
from hirelc.report.verdict import reproduction
from hirelc.report.words import duration, goal_words
from hirelc.search.bounds import Bounds
from hirelc.search.budgets import SIZE_LEVELS
from report.damage import cut, edit_journal

START = datetime(2026, 1, 1, tzinfo=UTC)


def run_of(*events: tuple[float, dict[str, Any]], **fields: Any) -> Run:
    """A run whose events happen at so many seconds."""
    stamped = tuple({"time": (START + timedelta(seconds=at)).isoformat(), **event} for at, event in events)
    given: dict[str, Any] = {
        "folder": Path("runs/x"),
        "config": {},
        "environment": {},
        "result": None,
        "problems": (),
        **fields,
    }
    return Run(events=stamped, **given)


def measurement(size: int, drop: float, **more: Any) -> dict[str, Any]:
    found = {"size_bytes": size, "accuracy": 90.0 - drop, "drop_points": drop, "macs": 5, "seconds": 4.0, **more}
    return {"event": "measurement", "cycle": 0, "origin": "vote", "measurement": found, "policy": {"choices": {}}}


# -- measurements ---------------------------------------------------------------------------------------------


def test_the_front_is_what_nothing_beats() -> None:
    points = [(100, 90.0), (90, 89.0), (100, 89.5), (120, 90.0), (90, 89.0)]
    assert on_front(points) == [True, True, False, False, True]


@pytest.mark.parametrize(
    ("goal", "best"),
    [
        ({"ratio": 10.0}, 1),  # 100 bytes at most: the most accurate of those that fit
        ({"max_bytes": 60}, 2),
        ({"max_bytes": 10}, 0),  # none fits: the most accurate
        ({"max_drop": 1.0}, 1),  # accuracy alone is limited: the smallest that keeps it
        ({"max_drop": 0.01}, 0),
    ],
)
def test_the_best_so_far_serves_the_goal(goal: dict[str, Any], best: int) -> None:
    run = run_of(
        (0, {"event": "start", "goal": goal}),
        (1, {"event": "network", "original_bytes": 1000, "blocks": []}),
        (2, measurement(110, 0.1)),
        (3, measurement(100, 0.5)),
        (4, measurement(50, 2.0)),
        (5, measurement(40, 0.0, failure="Diverged: the loss became nan")),
    )
    found = best_so_far(run, steps(run))
    assert found is not None
    assert found.number == best


def test_no_measurement_is_no_best() -> None:
    assert best_so_far(run_of((0, {"event": "start", "goal": {"ratio": 2.0}})), []) is None


def test_the_tightest_limit_counts() -> None:
    assert byte_limit({"ratio": 10.0, "max_bytes": 90}, 1000) == 90
    assert byte_limit({"ratio": 10.0, "max_bytes": 190}, 1000) == 100
    assert byte_limit({"max_drop": 1.0}, 1000) is None


def test_the_picked_one_is_found_by_its_policy(finished: Path) -> None:
    run = read_run(finished)
    found = picked(run, steps(run))
    assert found is not None
    assert found.measurement == run.event("pick")["measurement"]


def test_a_policy_in_words() -> None:
    choices = {
        "a": {"bits": 2, "keep_ratio": 0.5, "number_type": "int", "granularity": "per_channel"},
        "b": {"bits": 5, "keep_ratio": 1.0, "number_type": "int", "granularity": "log"},
    }
    assert policy_words(choices) == "3.5 bits, 75% of the channels on average; int 2; per channel 1, log 1"


# -- kernels --------------------------------------------------------------------------------------------------


def test_kernels_are_those_of_the_file(finished: Path) -> None:
    run = read_run(finished)
    found = kernels(run, steps(run))
    view = open_file(finished / "model.hirelc")
    assert [row.name for row in found.rows] == list(view.kernels)
    assert [row.size_bytes for row in found.rows] == [k.size_bytes for k in view.kernels.values()]
    assert found.other_bytes == view.size_bytes - sum(k.size_bytes for k in view.kernels.values()) > 0
    assert sum(found.parts.values()) == pytest.approx(found.other_bytes, abs=len(found.rows) + 4)  # words, rounding
    assert run.result is not None
    wanted = run.result["policy"]["choices"]
    assert {row.name: (row.bits, row.keep_ratio, row.number_type, row.granularity) for row in found.rows} == {
        name: (c["bits"], c["keep_ratio"], c["number_type"], c["granularity"]) for name, c in wanted.items()
    }
    assert {row.name for row in found.rows if row.block is None} == set(run.event("network")["frame"])


def test_an_unfinished_run_shows_its_best_candidate(copy: Path) -> None:
    run = read_run(cut(copy, 7))  # two measurements, no pick
    found = kernels(run, steps(run))
    assert "candidates/00" in found.origin
    assert found.problem is None
    assert found.rows


def test_a_file_that_cannot_be_read_leaves_the_choices(copy: Path) -> None:
    (copy / "model.hirelc").write_bytes(b"nothing of the kind")
    run = read_run(copy)
    found = kernels(run, steps(run))
    assert found.problem is not None
    assert "model.hirelc cannot be read" in found.problem
    assert found.rows
    assert all(row.size_bytes is None and row.bits >= 2 for row in found.rows)


# -- decisions ------------------------------------------------------------------------------------------------


def test_votes_are_decoded_as_the_search_decodes_them(finished: Path) -> None:
    run = read_run(finished)
    rows, note = decisions.vote_rows(run, steps(run))
    assert note is None
    step = decisions.voted(steps(run))[-1]
    limits = Bounds.of(SearchConfig(**run.config["search"]))
    budget = Budget(**step.decisions["high_level"]["budgets"][1])
    bounds = limits.within(budget)
    record = step.decisions["low_level"][1]
    kernel = decisions.short_name(run.blocks()[record["block"]][1])
    shown = [row for row in rows if row["cycle"] == step.cycle and row["kernel"] == kernel]
    assert [row["who"] for row in shown] == ["PPO 1", "A2C 2", "PPO 3", "vote", "measured"]
    for row, action in zip(shown, [*record["members"], record["vote"]], strict=False):
        precision, keep, kind, layout = action[4:8]
        plain = Choice(8, 1.0, list(NumberType)[kind], list(Granularity)[layout])
        choice = with_precision(plain, bounds.precisions[precision])
        assert row["bits"] == max(1, round(nominal_bits(choice)))
        assert row["keep"] == pytest.approx(bounds.keeps[keep], abs=1e-3)


def test_votes_on_sizes_are_those_of_the_journal(finished: Path) -> None:
    run = read_run(finished)
    rows = decisions.size_vote_rows(run, steps(run))
    for step in decisions.voted(steps(run)):
        vote = step.decisions["high_level"]["vote"]
        shown = [row for row in rows if row["cycle"] == step.cycle and row["who"] == decisions.VOTE]
        assert [decisions.SIZE_LEVELS.index(row["size"]) for row in shown] == vote["levels"]
        assert [row["strategy"] for row in shown] == vote["strategies"]
    assert len({row["who"] for row in rows}) == 4
    assert len(decisions.SIZE_LEVELS) == len(SIZE_LEVELS)


def test_the_measured_policy_stands_beside_the_vote(finished: Path) -> None:
    run = read_run(finished)
    rows, _ = decisions.vote_rows(run, steps(run))
    for step in decisions.voted(steps(run)):
        final = {row["kernel"]: row["bits"] for row in rows if row["cycle"] == step.cycle and row["who"] == decisions.FINAL}
        in_blocks = [name for names in run.blocks().values() for name in names]
        assert final == {
            decisions.short_name(name): max(1, round(nominal_bits(Choice(**step.choices[name])))) for name in in_blocks
        }


def test_a_vote_that_climbs_is_shown_once(finished: Path) -> None:
    run = read_run(finished)
    measured = steps(run)
    last = decisions.voted(measured)[-1]
    climbed = [*measured, replace(last, number=last.number + 1)]
    assert decisions.budget_rows(run, climbed) == decisions.budget_rows(run, measured)
    assert decisions.voted(climbed)[-1].number == last.number + 1


def test_a_large_network_shows_its_last_cycles(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = read_run(finished)
    every, _ = decisions.vote_rows(run, steps(run))
    monkeypatch.setattr(decisions, "MOST_ROWS", len(every) - 1)
    rows, note = decisions.vote_rows(run, steps(run))
    assert {row["cycle"] for row in rows} == {2}
    assert note is not None
    assert "before 2" in note


def test_every_block_and_agent_is_there(finished: Path) -> None:
    run = read_run(finished)
    measured = steps(run)
    budgets, rewards = decisions.budget_rows(run, measured), decisions.reward_rows(measured)
    assert len(budgets) == 2 * 2  # cycles, blocks
    assert len(rewards) == 2 * 3 * 3  # cycles, ensembles, members
    assert all(row["gain"] == row["reward"] - row["random"] for row in rewards)
    wanted = run.event("sensitivity")["blocks"]
    assert all(row["sensitivity"] == wanted[row["block"]] for row in budgets)
    predictions = decisions.surrogate_rows(measured)
    full = [step for step in measured if step.fidelity == "full"]
    assert [row["measured"] for row in predictions] == [step.drop for step in full]
    assert predictions[-1]["rank correlation"] == full[-1].learned["surrogate"]["rank_correlation"]


def test_trials_are_not_held_against_predictions(finished: Path) -> None:
    measured = steps(read_run(finished))
    trial = replace(measured[-1], measurement={**measured[-1].measurement, "fidelity": "calibrated"})
    assert len(decisions.surrogate_rows([*measured, trial])) == len(decisions.surrogate_rows(measured))


def test_curves_of_candidates_are_shown_where_the_journal_has_them(copy: Path) -> None:
    def add(events: list[dict[str, Any]]) -> None:
        first = next(event for event in events if event["event"] == "measurement")
        first["trained"] = {"scores": [[0, 50.0], [100, 60.0]]}

    edit_journal(copy, add)
    run = read_run(copy)
    rows = decisions.training_rows(run, steps(run))
    assert rows[:2] == [
        {"fine-tune": "candidate 1", "images": 0, "accuracy": 50.0},
        {"fine-tune": "candidate 1", "images": 100, "accuracy": 60.0},
    ]
    assert {row["fine-tune"] for row in rows} >= {"final", "control"}


# -- time -----------------------------------------------------------------------------------------------------


def test_time_is_given_to_what_was_done_in_it() -> None:
    run = run_of(
        (0, {"event": "start"}),
        (1, {"event": "network"}),
        (3, {"event": "baseline"}),
        (13, measurement(10, 0.0)),  # of which 4 s measuring
        (14, {"event": "interrupted"}),
        (1000, {"event": "resumed"}),
        (1005, {"event": "final"}),
    )
    found = {(span.phase, span.cycle): span.seconds for span in spans(run)}
    assert found[(AGENTS, 1)] == 6
    assert found[(MEASURING, 1)] == 4
    assert found[("final fine-tune", None)] == 5
    assert seconds_spent(run) == 1 + 2 + 10 + 1 + 5  # the break does not count


@pytest.mark.parametrize(
    ("last", "quiet", "expected"),
    [
        ({"event": "proxy"}, 60, State.RUNNING),
        ({"event": "proxy"}, 901, State.SILENT),
        ({"event": "interrupted"}, 60, State.INTERRUPTED),
        ({"event": "result", "met": True}, 1e6, State.FINISHED),
    ],
)
def test_how_a_run_stands(last: dict[str, Any], quiet: float, expected: State) -> None:
    run = run_of((0, {"event": "start"}), (10, last))
    assert state(run, START + timedelta(seconds=10 + quiet)) is expected


def test_long_steps_allow_for_long_silence() -> None:
    run = run_of((0, {"event": "start"}), (2000, {"event": "network"}))
    assert state(run, START + timedelta(seconds=7900)) is State.RUNNING
    assert state(run, START + timedelta(seconds=8100)) is State.SILENT


def test_the_metric_is_the_journals() -> None:
    run = run_of((0, {"event": "start", "metric": "mean IoU", "unit": "%"}))
    assert run.axis == "mean IoU, %"
    assert run_of((0, {"event": "start", "metric": "log-likelihood", "unit": ""})).axis == "log-likelihood"
    assert run_of((0, {"event": "start"})).axis == "accuracy, %"


# -- words ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.42, "0.4 s"), (12.4, "12 s"), (59.7, "1 min 00 s"), (450, "7 min 30 s"), (7500, "2 h 05 min")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_goals() -> None:
    assert goal_words({"ratio": 12.2, "max_drop": 0.5}) == "at least 12.2x smaller, at most 0.5 points lost"
    assert goal_words({"max_bytes": 60000}) == "at most 60,000 bytes"


def test_the_command_is_the_journals() -> None:
    run = run_of((0, {"event": "start", "command": ["hirelc", "compress", "--data", "my photos.npz"]}))
    assert reproduction(run) == ("hirelc compress --data 'my photos.npz'", "")


def test_the_command_is_put_together_from_the_settings(finished: Path) -> None:
    command, note = reproduction(read_run(finished))
    assert "--ratio 3 --max-drop 30 --seed 3 --cycles 2 --agent-steps 64 --images 2000" in command
    assert "Fill in" in note

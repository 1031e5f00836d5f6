from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hirelc.config import SearchConfig
from hirelc.errors import RunError
from hirelc.policy import Goal, Measurement
from hirelc.search.hierarchy import HierarchicalSearch
from search.fake import FakeProblem

SMALL = SearchConfig(cycles=2, trials=1, low_level_steps=128, high_level_steps=128)
TESTS = Path(__file__).parents[1]

SCRIPT = """
from search.fake import FakeProblem
from hirelc.config import SearchConfig
from hirelc.policy import Goal
from hirelc.search.hierarchy import HierarchicalSearch
problem = FakeProblem(2)
config = SearchConfig(cycles=2, trials=2, low_level_steps=64, high_level_steps=64)
search = HierarchicalSearch(problem, Goal(ratio=20), config, 3)
for cycle in range(2):
    for proposal in search.propose(cycle):
        search.observe(proposal, problem.measure(proposal.choices))
        print(proposal.policy.digest)
"""


def spawned(hash_seed: str) -> list[str]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(TESTS)}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_two_processes_propose_the_same() -> None:
    first = spawned("1")
    assert len(first) == 5 and first == spawned("2")


def test_a_search_beats_random_and_records_how() -> None:
    problem = FakeProblem()
    told: list[tuple[str, float]] = []
    search = HierarchicalSearch(problem, Goal(ratio=20, max_drop=0.5), SMALL, 0, lambda *news: told.append(news))
    first, vote = search.propose(0)
    assert (first.origin, vote.origin) == ("warm start", "vote")
    assert told[0] == ("budgets", 0.0) and all(0 <= fraction < 1 for _, fraction in told)
    record = json.loads(json.dumps(vote.record))
    assert len(record["high_level"]["budgets"]) == len(record["low_level"]) == len(vote.budgets) == 4
    assert len(record["low_level"][0]["members"]) == 3
    for block in record["low_level"]:
        for agent in block["agents"]:
            assert agent["reward"] > agent["random_reward"] and 0 < agent["entropy"] < 1
    assert vote.predicted_drop == record["predicted_drop"] > 0
    assert record["surrogate"]["in_use"] is False
    for proposal in (first, vote):
        entry = search.observe(proposal, problem.measure(proposal.choices))
        assert entry["absolute_error"] == pytest.approx(abs(entry["measured_drop"] - proposal.predicted_drop))
    (last,) = search.propose(1)
    assert last.record is not None and last.record["exploring"] is False
    assert last.record["low_level_vote_weights"] != [pytest.approx(1 / 3)] * 3


def test_trials_of_a_cycle_are_new_policies_within_the_limit_that_promise_most() -> None:
    problem = FakeProblem()
    search = HierarchicalSearch(problem, Goal(ratio=20, max_drop=0.5), replace(SMALL, trials=5), 0)
    first, explored, known, *wishes = search.propose(0)
    assert not first.trial and explored.origin == "vote" and explored.trial
    assert known.origin == "incumbent" and known.policy == first.policy
    assert 1 <= len(wishes) <= 3 and {wish.origin for wish in wishes} == {"member"}
    for proposal, drop in ((first, 0.6), (explored, 2.0)):
        search.observe(proposal, replace(problem.measure(proposal.choices), drop_points=drop))
    trials = search.propose(1)
    assert all(proposal.trial for proposal in trials)
    assert [proposal.origin for proposal in trials[:2]] == ["vote", "incumbent"] and trials[1].policy == first.policy
    assert {proposal.origin for proposal in trials[2:]} <= {"swap", "member", "variation"}
    assert len({proposal.policy for proposal in trials}) == 5
    gains = [proposal.record["expected_improvement"] for proposal in trials[2:] if proposal.record]
    assert gains == sorted(gains, reverse=True) and len(gains) == 3
    assert max(problem.file_bytes(proposal.choices) for proposal in trials) <= problem.original_bytes / 20


def test_a_trial_with_little_training_says_nothing_about_full_training() -> None:
    problem = FakeProblem(2)
    search = HierarchicalSearch(problem, Goal(ratio=20), replace(SMALL, trials=2), 0)
    _, vote, *_ = search.propose(0)
    calibrated = replace(problem.measure(vote.choices), fidelity="calibrated")
    assert search.observe(vote, calibrated)["measured_drop"] == calibrated.drop_points
    assert search._surrogate.record()["samples"] == 0 and search._feedback is None


def test_feedback_changes_what_the_high_level_sees() -> None:
    problem = FakeProblem(2)
    search = HierarchicalSearch(problem, Goal(ratio=20, max_drop=0.5), SMALL, 0)
    reference, _ = search.propose(0)
    entry = search.observe(reference, problem.measure(reference.choices))
    assert entry["severity"] > 0.5
    before = search._network.observe(search._network.feedback.granted)
    search.propose(1)
    after = search._network.observe(search._network.feedback.granted)
    assert before[0] == 0 and after[0] > 0


def test_a_failed_measurement_teaches_nothing() -> None:
    problem = FakeProblem(2)
    search = HierarchicalSearch(problem, Goal(ratio=20), SMALL, 0)
    reference, _ = search.propose(0)
    failed = Measurement(1, 0.0, 90.0, 1, "search-validation", failure="the loss became NaN")
    assert search.observe(reference, failed)["failure"] == "the loss became NaN"
    assert search._surrogate.record()["samples"] == 0


def test_no_signal_of_accuracy_in_any_block_stops_the_run() -> None:
    search = HierarchicalSearch(FakeProblem(2, dead=True), Goal(ratio=20), SMALL, 0)
    with pytest.raises(RunError, match="accuracy reward carries no signal"):
        search.propose(0)


def test_importing_the_search_loads_no_reinforcement_learning() -> None:
    code = "import sys, hirelc.search.problem, hirelc.search.baselines, hirelc.search.archive; "
    code += "assert not {'gymnasium', 'stable_baselines3'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

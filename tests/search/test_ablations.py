"""Each part that can be switched off: what changes without it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hirelc.config import PARTS, Config, SearchConfig
from hirelc.errors import RunError
from hirelc.policy import Choice, Goal
from hirelc.search.ablations import hierarchical, with_keeps, without_quantization, without_sensitivity
from hirelc.search.problem import Proposal
from search.fake import FakeProblem

GOAL = Goal(ratio=12, max_drop=0.5)


def searched(part: str | None, blocks: int = 2) -> tuple[FakeProblem, Any, Proposal]:
    """The problem, the search after its first cycle, and the vote of that."""
    problem = FakeProblem(blocks)
    config = SearchConfig(cycles=2, trials=1, low_level_steps=16, high_level_steps=16, without=part)
    search = hierarchical(problem, GOAL, config, 0)
    proposals = search.propose(0)
    for proposal in proposals:
        search.observe(proposal, problem.measure(proposal.choices))
    return problem, search, proposals[-1]


def record(proposal: Proposal) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(proposal.record))
    return found


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_a_setting_that_is_recorded(part: str) -> None:
    config = Config(search=SearchConfig(without=part))
    assert Config.from_json(config.to_json()) == config
    assert config.to_json()["search"]["without"] == part


def test_only_the_method_has_parts_and_only_these() -> None:
    with pytest.raises(RunError, match="unknown part 'luck'"):
        SearchConfig(without="luck")
    with pytest.raises(RunError, match="only hirelc has parts"):
        SearchConfig(strategy="uniform", without="surrogate")


def test_without_sensitivity_blocks_look_alike_and_budgets_do_not_shift() -> None:
    problem = FakeProblem(3)
    view = without_sensitivity(problem)
    assert {kernel.sensitivity for block in view.blocks for kernel in block.kernels} == {0.5}
    assert {block.sensitivity for block in view.blocks} == {0.5}
    assert {block.sensitivity for block in problem.blocks} != {0.5}
    _, search, _ = searched("sensitivity")
    assert search._scenes[0].info.sensitivity == 0.5


def test_without_surrogate_measurements_leave_the_prediction_alone() -> None:
    (_, whole, _), (_, without, _) = searched(None), searched("surrogate")
    assert whole._surrogate.cold_start.kappa != 1.0
    assert (without._surrogate.cold_start.kappa, without._surrogate.cold_start.power) == (1.0, 0.4)
    assert without._surrogate.record()["samples"] == 2


def test_without_ensemble_one_agent_decides() -> None:
    for part, members in ((None, 3), ("ensemble", 1)):
        _, _, vote = searched(part)
        decided = record(vote)
        assert {len(block["members"]) for block in decided["low_level"]} == {members}
        assert len(decided["high_level"]["members"]) == len(decided["low_level_vote_weights"]) == members
        if members == 1:
            assert all(block["vote"] == block["members"][0] for block in decided["low_level"])


def test_without_high_level_every_block_is_granted_the_same() -> None:
    (_, _, whole), (_, search, vote) = searched(None, 3), searched("high-level", 3)
    fractions = {round(budget.target_fraction, 9) for budget in vote.budgets}
    assert len(fractions) == 1 and {budget.strategy for budget in vote.budgets} == {"auto"}
    assert len({round(budget.target_fraction, 9) for budget in whole.budgets}) > 1
    assert record(vote)["high_level"]["agents"] == []
    assert search.propose(1)


def test_without_pruning_all_channels_stay() -> None:
    _, _, vote = searched("pruning")
    assert {choice.keep_ratio for decided in vote.choices for choice in decided} == {1.0}


def test_without_quantization_everything_has_eight_bits() -> None:
    problem, _, vote = searched("quantization")
    assert {(c.bits, c.coarse, c.number_type, c.granularity) for d in vote.choices for c in d} == {(8, 0, "int", "learned")}
    assert min(choice.keep_ratio for decided in vote.choices for choice in decided) < 0.5
    assert problem.file_bytes(vote.choices) <= problem.original_bytes / 12


def test_without_joint_channels_are_decided_first_and_stay() -> None:
    problem, search, vote = searched("joint")
    first = search._second._problem  # what the second half of the search sees
    keeps = [[choice.keep_ratio for choice in decided] for decided in vote.choices]
    assert min(min(row) for row in keeps) < 1
    assert not any(kernel.prunable for block in first.blocks for kernel in block.kernels)
    (again,) = search.propose(1)
    assert [[choice.keep_ratio for choice in decided] for decided in again.choices] == keeps
    assert len({choice.bits for decided in vote.choices for choice in decided}) > 1
    assert problem.file_bytes(vote.choices) <= problem.original_bytes / 12


def test_a_view_forces_choices_wherever_it_is_asked() -> None:
    problem = FakeProblem(2)
    kept = [[1.0] * len(block.kernels) for block in problem.blocks]
    wish = [[Choice(3, 0.5)] * len(block.kernels) for block in problem.blocks]
    plain = [problem.canonical(b, tuple(Choice(3) for _ in row)) for b, row in enumerate(wish)]
    view = with_keeps(problem, kept)
    assert view.file_bytes(wish) == problem.file_bytes(plain) and view.policy(wish) == problem.policy(plain)
    assert view.macs(wish) == problem.macs(plain) and view.latency_ms(wish) == problem.latency_ms(plain)
    assert view.block_bytes(1, wish[1]) == problem.block_bytes(1, plain[1])
    assert view.block_distortion(1, wish[1]) == problem.block_distortion(1, plain[1])
    eight = without_quantization(problem)
    assert eight.block_distortion(0, wish[0]) < problem.block_distortion(0, tuple(wish[0]))

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hirelc.config import SearchConfig
from hirelc.policy import Goal, Strategy
from hirelc.search.bounds import Bounds
from hirelc.search.budgets import ByteTarget, Treasury, balance, default_bytes, shifted
from search.fake import FakeProblem

BOUNDS = Bounds.of(SearchConfig())
levels = st.lists(st.integers(0, 4), min_size=4, max_size=4)
strategies = st.lists(st.sampled_from(list(Strategy)), min_size=4, max_size=4)


@given(levels, strategies, st.floats(12, 40))
def test_budgets_reach_the_goal_by_construction(chosen: list[int], leanings: list[Strategy], ratio: float) -> None:
    problem = FakeProblem()
    goal = 1 / ratio
    treasury = Treasury(problem, BOUNDS, goal, 1.0)
    budgets = treasury.budgets(chosen, leanings)
    mean = sum(budget.target_fraction * block.share for budget, block in zip(budgets, problem.blocks, strict=True))
    assert mean == pytest.approx(goal, rel=1e-6)
    for budget, floor in zip(budgets, treasury.floors, strict=True):
        assert budget.target_fraction >= floor - 1e-12
        if budget.strategy is Strategy.QUANTIZATION:
            assert budget.max_pruning == 0


def test_balance_clips_to_what_a_block_can_be() -> None:
    shares, raw = np.array([0.5, 0.5]), np.array([0.01, 0.10])
    granted = balance(raw, shares, 0.055, np.array([0.03, 0.03]), np.array([0.25, 0.25]))
    assert granted == pytest.approx([0.03, 0.08])
    assert balance(raw, shares, 0.001, np.array([0.03, 0.03]), np.array([0.25, 0.25])) == pytest.approx([0.03, 0.03])
    assert balance(raw, shares, 0.9, np.array([0.03, 0.03]), np.array([0.25, 0.25])) == pytest.approx([0.25, 0.25])


def test_sensitivity_shifts_by_one_level() -> None:
    assert shifted([2, 2, 2, 4, 0], [0.9, 0.5, 0.1, 0.9, 0.1]) == [3, 2, 1, 4, 0]


def test_pruning_keeps_bits_where_the_target_allows_and_gives_way_where_not() -> None:
    problem = FakeProblem()
    generous = Treasury(problem, BOUNDS, 0.1, 1.0).budgets([2] * 4, [Strategy.PRUNING] * 4)
    tight = Treasury(problem, BOUNDS, 0.022, 1.0).budgets([2] * 4, [Strategy.PRUNING] * 4)
    assert {(budget.strategy, budget.min_precision) for budget in generous} == {(Strategy.PRUNING, 16)}
    assert {(budget.strategy, budget.min_precision) for budget in tight} == {(Strategy.AUTO, BOUNDS.lowest)}


def test_the_middle_level_is_what_the_warm_start_gives() -> None:
    problem = FakeProblem()
    around = np.array([0.08, 0.03, 0.05, 0.04])
    goal = float(np.array([block.share for block in problem.blocks]) @ around)
    treasury = Treasury(problem, BOUNDS, goal, 1.0, around)
    treasury.sensitivities[:] = 0.5
    budgets = treasury.budgets([2] * 4, [Strategy.AUTO] * 4)
    assert [budget.target_fraction for budget in budgets] == pytest.approx(around)


def test_quantization_gives_way_where_bits_alone_cannot_do_it() -> None:
    budgets = Treasury(FakeProblem(), BOUNDS, 1 / 40, 1.0).budgets([2] * 4, [Strategy.QUANTIZATION] * 4)
    assert {budget.strategy for budget in budgets} == {Strategy.AUTO}


def test_a_byte_limit_is_the_target_whatever_is_measured() -> None:
    problem = FakeProblem()
    target = ByteTarget(problem, Goal(ratio=20, max_drop=0.5))
    target.observe(target.bytes, 9.0)
    assert target.bytes == problem.original_bytes // 20


def test_a_drop_limit_is_bisected_in_log_size() -> None:
    problem = FakeProblem()
    target = ByteTarget(problem, Goal(max_drop=0.5))
    start = target.bytes
    assert start == round(problem.original_bytes / 8)
    target.observe(start, 0.1)
    assert target.bytes == round(start / 1.5)
    target.observe(round(start / 1.5), 2.0)
    assert target.bytes == pytest.approx(start / 1.5**0.5, rel=1e-3)
    failing = ByteTarget(problem, Goal(max_drop=0.5))
    failing.observe(start, 2.0)
    assert failing.bytes == round(start * 1.5)


def test_a_goal_without_bytes_or_drop_aims_at_an_eighth() -> None:
    problem = FakeProblem()
    target = ByteTarget(problem, Goal(max_macs=1e5))
    target.observe(1, 50.0)
    assert target.bytes == default_bytes(problem.original_bytes) == round(problem.original_bytes / 8)

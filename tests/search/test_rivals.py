"""What each rival does that the others do not; what all of them promise is in tests/contracts."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from hirelc.config import STRATEGY_NAMES, SearchConfig
from hirelc.errors import RunError
from hirelc.policy import Choice, Goal, Granularity, Measurement, NumberType
from hirelc.precision import precision_of, with_precision
from hirelc.search.baselines import check_libraries, make_search
from hirelc.search.bounds import Bounds
from hirelc.search.channels import keep_groups
from hirelc.search.fitting import reference
from hirelc.search.menu import menu, points
from hirelc.search.problem import Proposal
from hirelc.search.rivals.greedy import GreedySearch
from hirelc.search.rivals.knapsack import KnapsackSearch
from hirelc.search.rivals.whole import Whole
from hirelc.search.surrogate import distortion_of
from search.fake import FakeProblem

SMALL = SearchConfig(cycles=2, trials=1, low_level_steps=64, high_level_steps=64, levels=4)
GOAL = Goal(ratio=20)


def first(strategy: str, problem: FakeProblem, seed: int = 0) -> Proposal:
    return make_search(problem, GOAL, SearchConfig(**{**vars(SMALL), "strategy": strategy}), seed).propose(0)[0]


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_every_name_makes_a_strategy(strategy: str) -> None:
    make_search(FakeProblem(1), GOAL, SearchConfig(**{**vars(SMALL), "strategy": strategy}), 0)
    check_libraries(strategy)


def test_a_missing_library_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymoo", None)
    with pytest.raises(RunError, match=r"pymoo.*hirelc\[rivals\]"):
        check_libraries("evolution")


def test_choosing_a_rival_loads_nothing_of_the_others() -> None:
    code = "import sys, hirelc.search.baselines; "
    code += "assert not {'pymoo', 'scipy', 'gymnasium', 'stable_baselines3'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# -- greedy ---------------------------------------------------------------------------------------------------


def test_greedy_follows_sensitivity_and_not_the_proxy() -> None:
    """With the distortion turned off it proposes the same: it never asks for it."""
    chosen = [GreedySearch(FakeProblem(dead=dead), GOAL, SMALL).propose(0)[0].choices for dead in (False, True)]
    assert chosen[0] == chosen[1]
    problem = FakeProblem()
    kernels = [kernel for block in problem.blocks for kernel in block.kernels]
    rungs = [precision_of(choice) for decided in chosen[0] for choice in decided]
    most, least = (f([k.sensitivity for k in kernels]) for f in (max, min))
    high = np.mean([r for r, k in zip(rungs, kernels, strict=True) if k.sensitivity == most])
    low = np.mean([r for r, k in zip(rungs, kernels, strict=True) if k.sensitivity == least])
    assert high > low


def test_greedy_steps_around_the_best_setting_measured() -> None:
    problem = FakeProblem()
    search = GreedySearch(problem, Goal(ratio=12), SMALL)
    proposals = search.propose(0)
    for proposal, drop in zip(proposals, (3.0, 1.0), strict=True):
        search.observe(proposal, Measurement(1, 0.0, drop, 1, "search-validation"))
    (third,) = search.propose(1)
    tilts = [proposal.record["tilt"] for proposal in (*proposals, third)]
    assert tilts[2] not in tilts[:2]
    assert abs(np.log2(tilts[2] / tilts[1])) == pytest.approx(0.5)


# -- knapsack -------------------------------------------------------------------------------------------------


def test_knapsack_is_exact() -> None:
    """Against every combination of a small network: nothing within the limit has less distortion."""
    problem, config = FakeProblem(1), SearchConfig(**{**vars(SMALL), "levels": 2, "min_bits": 3, "strategy": "knapsack"})
    search = KnapsackSearch(problem, Goal(ratio=12), config)
    found = search.propose(0)[0]
    assert problem.file_bytes(found.choices) <= search.target.bytes
    kept = [replace(choice, keep_ratio=keep) for choice in ladder(Bounds.of(config)) for keep in (0.5, 1.0)]
    everything = product(kept, repeat=len(problem.blocks[0].kernels))
    best = min(
        distortion_of(problem, [choices])
        for choices in (problem.canonical(0, wanted) for wanted in everything)
        if problem.file_bytes([choices]) <= search.target.bytes
    )
    assert distortion_of(problem, found.choices) <= best * 1.002


def ladder(bounds: Bounds) -> list[Choice]:
    """The formats with learned steps, all rungs: on the fake's scale no other format is better in both."""
    return [
        with_precision(Choice(number_type=kind, granularity=Granularity.LEARNED), rung)
        for kind in NumberType
        for rung in range(bounds.lowest, bounds.highest + 1)
    ]


def test_knapsack_beats_the_greedy_fit_on_the_same_proxy() -> None:
    problem = FakeProblem(2)
    greedy = distortion_of(problem, reference(problem, problem.original_bytes // 20, Bounds.of(SMALL)).choices)
    found = first("knapsack", problem)
    assert distortion_of(problem, found.choices) < greedy
    assert found.record is not None and found.record["solver"]["gap"] <= 1e-3


def test_points_are_a_front_of_all_combinations() -> None:
    tables = menu(FakeProblem(2), Bounds.of(SMALL)).tables
    table = max(tables, key=lambda table: len(table.kernels))
    assert len(table.kernels) == 3 and len(table.courses) > 1
    front = points(table, np.inf, by_course=False)
    assert (np.diff(front.size_bytes) > 0).all() and (np.diff(front.distortion) < 0).all()
    assert len(points(table, np.inf, by_course=True).size_bytes) > len(front.size_bytes)


def test_kernels_that_share_channels_are_one_group() -> None:
    problem = FakeProblem()
    groups = [keep_groups(block) for block in problem.blocks]
    for block, found in zip(problem.blocks, groups, strict=True):
        together = [index for group in found for index in group]
        assert together == [index for index, kernel in enumerate(block.kernels) if kernel.prunable]


# -- evolution and the flat agent -----------------------------------------------------------------------------


def test_evolution_improves_on_its_first_population() -> None:
    problem = FakeProblem(2)
    config = SearchConfig(**{**vars(SMALL), "low_level_steps": 400, "strategy": "evolution"})
    search = make_search(problem, GOAL, config, 0)
    before = search._judged(search._population)  # type: ignore[attr-defined]
    least = min((drop for drop, over in zip(before[0][:, 1], before[1].max(axis=1), strict=True) if over <= 0), default=np.inf)
    proposal = search.propose(0)[0]
    assert proposal.predicted_drop is not None and proposal.predicted_drop < least


def test_evolution_and_the_flat_agent_learn_from_measurements() -> None:
    problem = FakeProblem(1)
    for strategy in ("evolution", "flat"):
        search = make_search(problem, GOAL, SearchConfig(**{**vars(SMALL), "strategy": strategy}), 0)
        for proposal in search.propose(0):
            entry = search.observe(proposal, problem.measure(proposal.choices))
        assert entry["surrogate"]["samples"] == 2 and entry["predicted_drop"] is not None


def test_the_whole_network_is_one_block_with_the_same_numbers() -> None:
    problem = FakeProblem(3)
    whole = Whole(problem)
    (block,) = whole.blocks
    choices = whole.canonical(0, [Choice(4, 0.7)] * len(block.kernels))
    parts = whole.split(choices)
    assert [len(part) for part in parts] == [len(b.kernels) for b in problem.blocks]
    assert whole.file_bytes([choices]) == problem.file_bytes(parts) and whole.macs([choices]) == problem.macs(parts)
    assert whole.policy([choices]) == problem.policy(parts)
    assert whole.block_distortion(0, choices) == pytest.approx(distortion_of(problem, parts))
    assert block.weights == sum(b.weights for b in problem.blocks)


def test_the_flat_agent_takes_as_many_steps_as_all_agents_together() -> None:
    problem = FakeProblem(2)
    proposal = first("flat", problem)
    assert proposal.record is not None
    (report,) = proposal.record["agents"]
    assert report["algorithm"] == "PPO" and report["steps"] >= 3 * 64 * (2 + 1)

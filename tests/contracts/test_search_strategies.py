from __future__ import annotations

import pytest

from contracts.search_strategy import CYCLES, Make, SearchStrategyContract, drive
from hirelc.config import PARTS, SearchConfig
from hirelc.policy import Goal
from hirelc.search.baselines import make_search
from hirelc.search.problem import INCUMBENT
from search.fake import FakeProblem


class TestRandom(SearchStrategyContract):
    strategy = "random"
    levels = 15

    @pytest.fixture
    def make(self) -> Make:
        config = SearchConfig(CYCLES, low_level_steps=64, high_level_steps=64, levels=self.levels, strategy=self.strategy)
        return lambda problem, goal, seed: make_search(problem, goal, config, seed)


class TestUniform(TestRandom):
    strategy = "uniform"


class TestGreedy(TestRandom):
    strategy = "greedy"


class TestKnapsack(TestRandom):
    strategy = "knapsack"
    levels = 4  # a smaller program


class TestEvolution(TestRandom):
    strategy = "evolution"


class TestFlat(TestRandom):
    strategy = "flat"


class TestHierarchical(TestRandom):
    strategy = "hirelc"


ONE_KIND = ("pruning", "quantization")  # without one of them, the smallest that the fake can be is far larger


def without(part: str) -> Make:
    config = SearchConfig(cycles=CYCLES, low_level_steps=32, high_level_steps=32, without=part)
    return lambda problem, goal, seed: make_search(problem, goal, config, seed)


@pytest.mark.slow
class TestWithoutAPart(SearchStrategyContract):
    @pytest.fixture(params=[part for part in PARTS if part not in ONE_KIND])
    def make(self, request: pytest.FixtureRequest) -> Make:
        return without(request.param)


@pytest.mark.slow
@pytest.mark.parametrize("part", ONE_KIND)
def test_one_kind_of_compression_alone_reaches_what_it_can(part: str) -> None:
    problem = FakeProblem()
    proposals = drive(problem, without(part)(problem, Goal(ratio=6), 0))
    policies = [proposal.policy for proposal in proposals if proposal.origin != INCUMBENT]
    assert len(set(policies)) == len(policies) >= CYCLES
    assert max(problem.file_bytes(proposal.choices) for proposal in proposals) <= problem.original_bytes / 6
    decided = [choice for proposal in proposals for block in proposal.choices for choice in block]
    assert all(c.keep_ratio == 1 for c in decided) if part == "pruning" else all(c.bits == 8 for c in decided)
    far = without(part)(problem, Goal(ratio=1000), 0).propose(0)
    assert far and max(problem.original_bytes / problem.file_bytes(proposal.choices) for proposal in far) > 6

from __future__ import annotations

import pytest

from contracts.search_strategy import CYCLES, Make, SearchStrategyContract
from hirelc.config import PARTS, SearchConfig
from hirelc.search.baselines import make_search


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


class TestWithoutAPart(SearchStrategyContract):
    @pytest.fixture(params=PARTS)
    def make(self, request: pytest.FixtureRequest) -> Make:
        config = SearchConfig(cycles=CYCLES, low_level_steps=32, high_level_steps=32, without=request.param)
        return lambda problem, goal, seed: make_search(problem, goal, config, seed)

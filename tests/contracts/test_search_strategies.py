from __future__ import annotations

import pytest

from contracts.search_strategy import CYCLES, Make, SearchStrategyContract
from hirelc.config import SearchConfig
from hirelc.search.baselines import make_search


class TestRandom(SearchStrategyContract):
    strategy = "random"

    @pytest.fixture
    def make(self) -> Make:
        config = SearchConfig(cycles=CYCLES, low_level_steps=64, high_level_steps=64, strategy=self.strategy)
        return lambda problem, goal, seed: make_search(problem, goal, config, seed)


class TestUniform(TestRandom):
    strategy = "uniform"


class TestHierarchical(TestRandom):
    strategy = "hirelc"

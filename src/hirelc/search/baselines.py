"""Names and strategies: the one place that knows which rival, or which form of the method, a configuration means."""

from __future__ import annotations

from collections.abc import Callable

from hirelc.config import SearchConfig
from hirelc.policy import Goal
from hirelc.search.problem import Problem, SearchStrategy

Progress = Callable[[str, float], None]


def make_search(
    problem: Problem, goal: Goal, config: SearchConfig, seed: int, progress: Progress | None = None
) -> SearchStrategy:
    """The strategy that `config.strategy` names, without the part that `config.without` names.

    Each is imported only here: the agents' libraries take a while to load, and the rivals' may be missing.

    :raises RunError: a library that the strategy needs is not installed
    """
    told: Progress = progress or (lambda message, fraction: None)
    if config.strategy == "random":
        from hirelc.search.rivals.random_draws import RandomSearch

        return RandomSearch(problem, goal, config, seed)
    if config.strategy == "uniform":
        from hirelc.search.rivals.uniform import UniformSearch

        return UniformSearch(problem, goal, config)
    if config.strategy == "greedy":
        from hirelc.search.rivals.greedy import GreedySearch

        return GreedySearch(problem, goal, config)
    if config.strategy == "knapsack":
        from hirelc.search.rivals.knapsack import KnapsackSearch

        return KnapsackSearch(problem, goal, config)
    if config.strategy == "evolution":
        from hirelc.search.rivals.evolution import EvolutionSearch

        return EvolutionSearch(problem, goal, config, seed, told)
    if config.strategy == "flat":
        from hirelc.search.rivals.flat import FlatSearch

        return FlatSearch(problem, goal, config, seed, told)
    from hirelc.search.ablations import hierarchical

    return hierarchical(problem, goal, config, seed, told)


def check_libraries(strategy: str) -> None:
    """Finds out before any work is done whether a strategy can be made.

    :raises RunError: a library that it needs is not installed
    """
    if strategy == "evolution":
        from hirelc.search.rivals.evolution import library

        library()

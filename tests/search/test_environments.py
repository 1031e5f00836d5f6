from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from hirelc.config import SearchConfig
from hirelc.errors import RunError
from hirelc.policy import Budget, Choice, Strategy
from hirelc.search.bounds import Bounds, alike
from hirelc.search.budgets import Treasury
from hirelc.search.environments import BlockEnvironment, BlockScene, Feedback, NetworkEnvironment, NetworkScene
from hirelc.search.fitting import rate_curve
from hirelc.search.rewards import HIGH_LEVEL_WEIGHTS, LOW_LEVEL_WEIGHTS
from hirelc.search.surrogate import ColdStart
from search.fake import FakeProblem

BOUNDS = Bounds.of(SearchConfig())
WEIGHTS = LOW_LEVEL_WEIGHTS[1]


def block_environment(budget: Budget, block: int = 1) -> BlockEnvironment:
    problem = FakeProblem()
    scene = BlockScene(problem, block, 0.25, BOUNDS)
    scene.grant(budget, ColdStart(), False, alike(problem.blocks[block], 16))
    return BlockEnvironment(scene, WEIGHTS, BOUNDS.levels)


def network_environment() -> NetworkEnvironment:
    problem = FakeProblem()
    scene = NetworkScene({s: [rate_curve(problem, b, BOUNDS) for b in range(4)] for s in Strategy})
    treasury = Treasury(problem, BOUNDS, 0.05, 1.0)
    scene.aim(treasury, ColdStart(), Feedback(1.0, 1.0, 0.5, np.full(4, 0.05)), 0.25)
    return NetworkEnvironment(scene, HIGH_LEVEL_WEIGHTS[0])


@pytest.mark.parametrize("check", [check_env, sb3_check_env])
@pytest.mark.filterwarnings("error", "ignore:.*alternative render modes.*")
def test_environments_are_valid(check: Callable[[Any], None]) -> None:
    check(block_environment(Budget(0.05, 0.5, 0, Strategy.AUTO, 1.0)))
    check(network_environment())


def decided(environment: BlockEnvironment) -> list[Choice]:
    environment.action_space.seed(0)
    return [c for _ in range(50) for c in environment.scene.choices(environment.action_space.sample())]


def test_strategies_take_effect() -> None:
    quantized = decided(block_environment(Budget(0.05, 0.0, 0, Strategy.QUANTIZATION, 1.0)))
    pruned = decided(block_environment(Budget(0.05, 0.5, 16, Strategy.PRUNING, 1.0)))
    free = decided(block_environment(Budget(0.05, 0.5, 0, Strategy.AUTO, 1.0)))
    assert {choice.keep_ratio for choice in quantized} == {1.0}
    assert {2, 3, 4, 8} <= {choice.bits for choice in quantized} and max(c.coarse for c in quantized) == 16
    assert {choice.bits for choice in pruned} == set(range(4, 9)) and {c.coarse for c in pruned} == {0}
    assert min(choice.keep_ratio for choice in pruned) == 0.5
    assert min(choice.bits for choice in free) == 2 and min(choice.keep_ratio for choice in free) == 0.5


def test_kernels_that_cannot_be_pruned_keep_all_channels() -> None:
    environment = block_environment(Budget(0.05, 0.5, 0, Strategy.AUTO, 1.0), block=0)
    environment.action_space.seed(0)
    for _ in range(20):
        assert environment.scene.choices(environment.action_space.sample())[0].keep_ratio == 1.0


@pytest.mark.parametrize("number", range(4))
def test_the_reward_varies_with_every_number_of_an_action(number: int) -> None:
    """All else equal, bits, keep, number type and granularity each move the reward."""
    rewards = set()
    for option in range(2):
        environment = block_environment(Budget(0.05, 0.5, 0, Strategy.AUTO, 1.0))
        environment.reset()
        action = np.array([7, 7, 0, 2] * 3)
        action[number] = (0, 14)[option] if number < 2 else (0, 1)[option]
        rewards.add(environment.step(action)[1])
    assert len(rewards) == 2


def test_observations_see_the_budget() -> None:
    tight, wide = (block_environment(Budget(f, 0.5, 0, Strategy.AUTO, 1.0)).reset()[0] for f in (0.03, 0.2))
    assert not np.array_equal(tight, wide)


def test_an_environment_without_budget_says_so() -> None:
    environment = BlockEnvironment(BlockScene(FakeProblem(), 0, 0.25, BOUNDS), WEIGHTS, BOUNDS.levels)
    with pytest.raises(RunError, match=r"blocks\.0"):
        _ = environment.scene.budget

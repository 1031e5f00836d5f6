from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from hirelc.config import SearchConfig
from hirelc.errors import RunError
from hirelc.policy import Budget, Strategy
from hirelc.search.agents import Ensemble
from hirelc.search.bounds import Bounds, alike
from hirelc.search.environments import BlockEnvironment, BlockScene
from hirelc.search.rewards import LOW_LEVEL_WEIGHTS
from hirelc.search.surrogate import ColdStart
from search.fake import FakeProblem


class Identity(gym.Env[Any, Any]):
    """Rewards the action that repeats what is observed; `gain` 0 rewards everything alike."""

    def __init__(self, gain: float = 1.0) -> None:
        self.observation_space = spaces.Box(-1, 1, (6,), np.float32)
        self.action_space = spaces.MultiDiscrete([3, 3])
        self._gain, self._generator = gain, np.random.default_rng(0)

    def _observe(self) -> np.ndarray:
        self._wanted = self._generator.integers(3, size=2)
        return np.concatenate([np.eye(3)[w] for w in self._wanted]).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._steps = 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> Any:
        self._steps += 1
        reward = self._gain * float((action == self._wanted).mean())
        return self._observe(), reward, self._steps >= 8, False, {}


def test_the_ensemble_solves_an_identity_environment() -> None:
    reports = Ensemble("identity", lambda weights: Identity(), LOW_LEVEL_WEIGHTS, 0).train(4096)
    assert [report.algorithm for report in reports] == ["PPO", "A2C", "PPO"]
    assert all(report.reward > 0.95 for report in reports)
    assert all(report.random_reward < 0.5 for report in reports)


def test_a_reward_without_signal_stops_the_run() -> None:
    with pytest.raises(RunError, match="deaf: the reward carries no signal"):
        Ensemble("deaf", lambda weights: Identity(gain=0), LOW_LEVEL_WEIGHTS, 0).train(64)


@pytest.mark.parametrize("seed", [0, 1])
def test_members_beat_random_actions_and_make_up_their_minds(seed: int) -> None:
    problem, bounds = FakeProblem(), Bounds.of(SearchConfig())
    scene = BlockScene(problem, 1, 0.3, bounds)
    start = alike(problem.blocks[1], 0)
    scene.grant(Budget(0.05, 0.5, 0, Strategy.AUTO, 1.0), ColdStart(), False, start)
    ensemble = Ensemble("block", lambda w: BlockEnvironment(scene, w, bounds.levels), LOW_LEVEL_WEIGHTS, seed)
    first, second = ensemble.train(768), ensemble.train(768)
    assert scene.drop_spread > 0
    for early, late in zip(first, second, strict=True):
        assert early.steps == 768
        assert early.reward > early.random_reward + 0.5
        assert late.reward > early.reward
        assert late.entropy < early.entropy < 0.9
    deterministic = ensemble.act(deterministic=True)
    assert all(np.array_equal(a, b) for a, b in zip(deterministic, ensemble.act(deterministic=True), strict=True))

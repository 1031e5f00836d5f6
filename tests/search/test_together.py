from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from hirelc.search.together import Together


class Counter(gym.Env[Any, Any]):
    """Observes its step and the last action; three steps long."""

    observation_space = spaces.Box(-10, 10, (2,), np.float32)
    action_space = spaces.MultiDiscrete([5])

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._step = 0
        return np.array([0, -1], np.float32), {}

    def step(self, action: Any) -> Any:
        self._step += 1
        return np.array([self._step, action[0]], np.float32), float(action[0]), self._step >= 3, False, {}


def test_steps_are_those_of_the_library() -> None:
    ours, theirs = Together([Counter, Counter]), DummyVecEnv([Counter, Counter])
    assert np.array_equal(ours.reset(), theirs.reset())  # type: ignore[arg-type]
    kept, generator = [], np.random.default_rng(0)
    for _ in range(7):
        actions = generator.integers(5, size=(2, 1))
        mine, others = ours.step(actions), theirs.step(actions)
        for a, b in zip(mine[:3], others[:3], strict=True):
            assert np.array_equal(a, b) and a.dtype == b.dtype  # type: ignore[union-attr,arg-type]
        kept.append((mine[0], np.array(mine[0])))
    assert all(np.array_equal(shown, copied) for shown, copied in kept)  # type: ignore[arg-type]

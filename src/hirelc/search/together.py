"""Environments that one agent steps together, without the library's deep copies of every observation and remark."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv


class Together(DummyVecEnv):
    """The library's environments in one process, for observations that are one array. An episode's end starts the next."""

    def step_wait(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Observations (n_envs, width), rewards (n_envs,), ends (n_envs,), and nothing to remark."""
        observations = np.empty((self.num_envs, *(self.observation_space.shape or ())), self.observation_space.dtype)
        rewards, ends = np.empty(self.num_envs, np.float32), np.empty(self.num_envs, np.bool_)
        for index, environment in enumerate(self.envs):
            observations[index], rewards[index], ended, cut, _ = environment.step(self.actions[index])
            ends[index] = ended or cut
            if ends[index]:
                observations[index], _ = environment.reset()
        return observations, rewards, ends, [{} for _ in self.envs]

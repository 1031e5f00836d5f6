"""Ensembles of PPO, A2C and PPO (stable-baselines3) that go on learning from cycle to cycle.

Every step is a whole decision with its own reward, so nothing is discounted into it: gamma is 0. The networks
are tiny, and many environments are stepped at a time, because a forward pass for sixteen observations costs what
one for a single observation does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from hirelc.errors import RunError
from hirelc.search.distributions import ChoicePolicy
from hirelc.search.isolation import isolated
from hirelc.search.rewards import Weights
from hirelc.search.together import Together
from hirelc.seeds import stream_seed

logger = logging.getLogger("hirelc")

WARM = 0.6  # how likely each number of an action is to be that of a warm start, before anything is learned

Action = NDArray[np.int64]
EnvironmentFactory = Callable[[Weights], gym.Env[Any, Any]]


@dataclass(frozen=True)
class AgentSettings:
    """How the agents learn, under the names of stable-baselines3.

    :param n_envs: environments that one agent steps together
    :param probe_steps: steps per environment that measure an ensemble against random actions
    """

    n_envs: int = 16
    width: int = 32
    gamma: float = 0.0
    ppo_learning_rate: float = 1e-2
    ppo_n_steps: int = 4
    ppo_n_epochs: int = 5
    ppo_batch_size: int = 64
    a2c_learning_rate: float = 1.5e-2
    a2c_n_steps: int = 4
    probe_steps: int = 4


@dataclass(frozen=True)
class MemberReport:
    """What one member learned in a cycle. Rewards are means per step, in the environments' units.

    :param reward: of the member's own (stochastic) actions after training
    :param random_reward: of uniformly random actions in the same budget
    :param entropy: of its policy, as a part of that of uniform randomness
    """

    algorithm: str
    steps: int
    reward: float
    random_reward: float
    entropy: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class _Member:
    """One agent: its environments, its network, its streams of randomness."""

    def __init__(self, algorithm: str, factory: Callable[[], gym.Env[Any, Any]], seed: int, settings: AgentSettings) -> None:
        self.algorithm, self._seed, self._settings = algorithm, seed, settings
        self._cycles = 0
        self._probe = factory()
        self._environments = Together([factory for _ in range(settings.n_envs)])
        network = {"net_arch": [settings.width], "activation_fn": torch.nn.Tanh}
        common: dict[str, Any] = {"gamma": settings.gamma, "policy_kwargs": network, "device": "cpu"}
        with isolated(self._stream("start")):
            self._model: OnPolicyAlgorithm
            if algorithm == "PPO":
                self._model = PPO(
                    ChoicePolicy,
                    self._environments,
                    learning_rate=settings.ppo_learning_rate,
                    n_steps=settings.ppo_n_steps,
                    n_epochs=settings.ppo_n_epochs,
                    batch_size=settings.ppo_batch_size,
                    **common,
                )
            else:
                self._model = A2C(
                    ChoicePolicy,
                    self._environments,
                    learning_rate=settings.a2c_learning_rate,
                    n_steps=settings.a2c_n_steps,
                    normalize_advantage=True,
                    use_rms_prop=False,
                    **common,
                )

    def warm_start(self, action: Action) -> None:
        """Makes the numbers of an action likely, whatever is observed."""
        counts = self._environments.action_space.nvec  # type: ignore[attr-defined]
        starts = np.cumsum(counts) - counts
        with torch.no_grad():
            bias = self._model.policy.get_parameter("action_net.bias")
            for start, count, number in zip(starts.tolist(), counts.tolist(), action.tolist(), strict=True):
                bias[start + number] += np.log(WARM / (1 - WARM) * max(count - 1, 1))

    def _stream(self, name: str) -> int:
        return stream_seed(self._seed, name, self._cycles)

    def train(self, steps: int) -> MemberReport:
        """Learns in the environments as they are now, and compares itself with random actions.

        :raises RunError: when random actions all earn the same
        """
        self._cycles += 1
        with isolated(self._stream("random")):
            generator = np.random.default_rng(self._stream("random"))
            choices = self._environments.action_space.nvec  # type: ignore[attr-defined]
            random_rewards = self._rewards(
                lambda observations: generator.integers(choices, size=(len(observations), len(choices)))
            )
        if np.ptp(random_rewards) == 0:
            raise RunError(
                f"the reward carries no signal: {random_rewards.size} random actions all earned {random_rewards.flat[0]:.4g}"
            )
        with isolated(self._stream("learn")):
            self._model.learn(steps)
        with isolated(self._stream("own")):
            rewards = self._rewards(lambda observations: self._model.predict(observations)[0])
        return MemberReport(
            self.algorithm, self._model.num_timesteps, float(rewards.mean()), float(random_rewards.mean()), self.entropy()
        )

    def _rewards(self, act: Callable[[Any], Action]) -> NDArray[np.float32]:
        """Rewards of a short rollout, (probe_steps, n_envs)."""
        observations = self._environments.reset()
        rewards = []
        for _ in range(self._settings.probe_steps):
            observations, earned, _, _ = self._environments.step(act(observations))
            rewards.append(earned)
        return np.array(rewards)

    def entropy(self) -> float:
        """Entropy of the policy where episodes start, as a part of that of uniform randomness."""
        observation, _ = self._probe.reset()
        with torch.no_grad():
            batch, _ = self._model.policy.obs_to_tensor(observation)
            entropy = self._model.policy.get_distribution(batch).entropy()
        assert entropy is not None  # None only for squashed Gaussians
        uniform = np.log(self._environments.action_space.nvec).sum()  # type: ignore[attr-defined]
        return float(entropy.mean() / uniform)

    def act(self, deterministic: bool, attempt: int, start: Action | None) -> Action:
        """The best-rewarded action of one episode of its own, which opens with `start` where there is one."""
        with isolated(self._stream(f"act/{attempt}")):
            observation, _ = self._probe.reset()
            best, best_reward, done = start, -np.inf, False
            while not done:
                action = start
                if action is None or best_reward > -np.inf:
                    action, _ = self._model.predict(observation, deterministic=deterministic)
                observation, reward, done, _, _ = self._probe.step(action)
                if float(reward) > best_reward:
                    best, best_reward = action, float(reward)
        assert best is not None  # an episode has at least one step, and rewards are finite
        return best


class Ensemble:
    """Up to three agents with different weights and one kind of environment; they persist over cycles.

    :param name: names its random streams and its log lines
    :param factory: builds an environment for a member's weights; it reads the current budget from a shared scene
    :param weights: one per member
    """

    ALGORITHMS = ("PPO", "A2C", "PPO")

    def __init__(
        self,
        name: str,
        factory: EnvironmentFactory,
        weights: Sequence[Weights],
        seed: int,
        settings: AgentSettings | None = None,
    ) -> None:
        self.name = name
        self._members = [
            _Member(
                algorithm,
                lambda own=own: factory(own),  # type: ignore[misc]
                stream_seed(seed, "ensemble", name, index),
                settings or AgentSettings(),
            )
            for index, (algorithm, own) in enumerate(zip(self.ALGORITHMS[: len(weights)], weights, strict=True))
        ]

    def warm_start(self, action: Action) -> None:
        """Members that have learned nothing yet begin near an action, and explore around it."""
        for member in self._members:
            member.warm_start(action)

    def train(self, steps: int) -> tuple[MemberReport, ...]:
        """Trains every member for `steps` environment steps (rounded up to whole rollouts).

        :raises RunError: when the reward carries no signal
        """
        try:
            reports = tuple(member.train(steps) for member in self._members)
        except RunError as error:
            raise RunError(f"{self.name}: {error}") from None
        logger.debug("%s: reward %s, random %s, entropy %s", self.name, *_columns(reports))
        return reports

    def act(self, deterministic: bool, attempt: int = 0, start: Action | None = None) -> list[Action]:
        """One action per member: the best that it tried.

        :param attempt: numbers independent draws of one cycle
        :param start: what every member tries first
        """
        return [member.act(deterministic, attempt, start) for member in self._members]


def _columns(reports: Sequence[MemberReport]) -> list[str]:
    rows = [(report.reward, report.random_reward, report.entropy) for report in reports]
    return [" ".join(f"{value:.3f}" for value in column) for column in zip(*rows, strict=True)]

"""The two gymnasium environments. Scenes hold what their agents share; environments hold one agent's episode.

A block's distortion is measured on its own, never amid left-over exploration of other blocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log2, tanh
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from hirelc.errors import RunError
from hirelc.policy import Budget, Choice, Granularity, NumberType, Strategy
from hirelc.precision import RUNGS, precision_of, with_precision
from hirelc.search.bounds import Bounds, size_fraction
from hirelc.search.budgets import PRUNING_PRECISION, SIZE_LEVELS, STRATEGIES, Treasury
from hirelc.search.fitting import RateCurve, rate_curve
from hirelc.search.problem import Problem
from hirelc.search.rewards import (
    REWARD_SCALE,
    STABILITY_WINDOW,
    Weights,
    accuracy_term,
    block_reward,
    feedback_term,
    network_reward,
    sensitivity_term,
)
from hirelc.search.surrogate import ColdStart, DropModel, block_features

Observation = NDArray[np.float32]
Action = NDArray[np.int64]

NUMBER_TYPES, GRANULARITIES = tuple(NumberType), tuple(Granularity)
EPISODE_STEPS = 8
_SMALLEST_FRACTION = 1 / 64


def _bounded(value: float) -> float:
    """Any number, squashed into (-1, 1)."""
    return tanh(value)


def _size(fraction: float) -> float:
    """A size fraction on a log scale: 0 for the size of fp32, 1 for a 64th of it or less."""
    return min(-log2(max(fraction, _SMALLEST_FRACTION)) / 6, 1.0)


class BlockOutcome(NamedTuple):
    """What one action does to a block."""

    choices: tuple[Choice, ...]
    size_fraction: float
    drop_points: float
    observed_choices: Observation


class BlockScene:
    """What all agents of one block share: its budget, the drop model, and every outcome they have seen.

    :param block: index of the block
    :param distortion_share: the block's part of the distortion of the reference policy, above 0
    """

    def __init__(self, problem: Problem, block: int, distortion_share: float, bounds: Bounds) -> None:
        self.info = problem.blocks[block]
        self._problem, self._block, self._share, self._widest = problem, block, distortion_share, bounds
        self._outcomes: dict[bytes, BlockOutcome] = {}
        self._options: dict[tuple[bool, int, int, int, int], Choice] = {}
        self._budget: Budget | None = None
        self.kernel_count = len(self.info.kernels)

    def grant(self, budget: Budget, drop_model: DropModel, surrogate_in_use: bool, incumbent: Sequence[Choice]) -> None:
        """Starts a cycle: outcomes depend on the budget and the drop model, so the old ones are forgotten.

        :param incumbent: the choices from which episodes start
        """
        self._budget, self._drop_model, self._bounds = budget, drop_model, self._widest.within(budget)
        self._outcomes.clear()
        self._options.clear()
        strategy = [float(budget.strategy is option) for option in STRATEGIES]
        position = [self.info.position, self.info.sensitivity, self.info.share]
        granted = [_size(budget.target_fraction), budget.max_pruning, budget.min_precision / RUNGS, _bounded(budget.max_drop)]
        sensitivities = [kernel.sensitivity for kernel in self.info.kernels]
        self.fixed_observation = np.array([*position, *granted, *strategy, float(surrogate_in_use), *sensitivities], np.float32)
        self.start = self._evaluated(self._problem.canonical(self._block, tuple(incumbent)))

    @property
    def budget(self) -> Budget:
        """
        :raises RunError: before the first grant
        """
        if self._budget is None:
            raise RunError(f"block {self.info.name!r} has no budget yet: call grant() first")
        return self._budget

    @property
    def drop_spread(self) -> float:
        """Largest less smallest predicted drop seen in this cycle, in points; 0 means no signal of accuracy."""
        drops = [outcome.drop_points for outcome in self._outcomes.values()]
        return max(drops, default=0.0) - min(drops, default=0.0)

    def choices(self, action: Action) -> tuple[Choice, ...]:
        """The choices that an action asks for, as they take effect.

        :param action: (4 * kernels,): precision level, keep level, number type, granularity for each kernel
        """
        wanted = tuple(
            self._wanted(kernel.prunable, *numbers)
            for kernel, numbers in zip(self.info.kernels, action.reshape(-1, 4).tolist(), strict=True)
        )
        return self._problem.canonical(self._block, wanted)

    def _wanted(self, prunable: bool, precision: int, keep: int, number_type: int, granularity: int) -> Choice:
        """The choice that four numbers ask for; there are a few hundred of them in a budget."""
        key = (prunable, precision, keep, number_type, granularity)
        known = self._options.get(key)
        if known is None:
            ratio = self._bounds.keeps[keep] if prunable else 1.0
            plain = Choice(8, ratio, NUMBER_TYPES[number_type], GRANULARITIES[granularity])
            known = self._options[key] = with_precision(plain, self._bounds.precisions[precision])
        return known

    def action(self, choices: Sequence[Choice]) -> Action:
        """The action whose choices are closest, (4 * kernels,): the inverse of `choices`."""
        precisions, keeps = np.array(self._bounds.precisions), np.array(self._bounds.keeps)
        numbers = [
            (
                int(np.abs(precisions - precision_of(choice)).argmin()),
                int(np.abs(keeps - choice.keep_ratio).argmin()),
                NUMBER_TYPES.index(choice.number_type),
                GRANULARITIES.index(choice.granularity),
            )
            for choice in choices
        ]
        return np.array(numbers, np.int64).ravel()

    def outcome(self, action: Action) -> BlockOutcome:
        """Size and predicted drop of an action, looked up when it was tried before."""
        key = action.tobytes()
        known = self._outcomes.get(key)
        if known is None:
            known = self._outcomes[key] = self._evaluated(self.choices(action))
        return known

    def _evaluated(self, choices: tuple[Choice, ...]) -> BlockOutcome:
        drop = self._drop_model.predict(block_features(self._problem, self._block, choices, self._share))
        numbers = [
            number
            for choice in choices
            for number in (
                (1 + precision_of(choice)) / RUNGS,
                choice.keep_ratio,
                float(choice.number_type is NumberType.FLOAT),
                GRANULARITIES.index(choice.granularity) / (len(GRANULARITIES) - 1),
            )
        ]
        fraction = size_fraction(self._problem, self._block, choices)
        return BlockOutcome(choices, fraction, drop, np.array(numbers, np.float32))


class BlockEnvironment(gym.Env[Observation, Action]):
    """Low level: choose for every kernel of a block. Observations are bounded float32 vectors.

    Action, four numbers per kernel: precision level, keep level, number type, granularity. Every step is a complete
    decision with its own reward; the next step sees what it brought.
    """

    def __init__(self, scene: BlockScene, weights: Weights, levels: int, episode_steps: int = EPISODE_STEPS) -> None:
        self.scene, self.weights, self._episode_steps = scene, weights, episode_steps
        per_kernel = [levels, levels, len(NUMBER_TYPES), len(GRANULARITIES)]
        self.action_space = spaces.MultiDiscrete(per_kernel * scene.kernel_count)
        width = 11 + 4 + 5 * scene.kernel_count
        self.observation_space = spaces.Box(-1.0, 1.0, (width,), np.float32)
        self._recent: deque[float] = deque(maxlen=STABILITY_WINDOW)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self._step = 0
        self._recent.clear()
        return self._observe(self.scene.start, 0.0), {}

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        outcome, budget = self.scene.outcome(action), self.scene.budget
        reward = block_reward(
            drop_points=outcome.drop_points,
            allowed_points=budget.max_drop,
            size_fraction=outcome.size_fraction,
            target_fraction=budget.target_fraction,
            sensitivity=self.scene.info.sensitivity,
            recent=self._recent,
            weights=self.weights,
        )
        self._recent.append(reward)
        self._step += 1
        # The length is part of the task, so the end is a termination: no bootstrapping beyond it.
        return self._observe(outcome, reward), reward / REWARD_SCALE, self._step >= self._episode_steps, False, {}

    def _observe(self, outcome: BlockOutcome, reward: float) -> Observation:
        budget = self.scene.budget
        last = (
            _size(outcome.size_fraction),
            _bounded(outcome.size_fraction / budget.target_fraction - 1),
            _bounded(outcome.drop_points / budget.max_drop / 4),
            _bounded(reward / REWARD_SCALE / 2),
        )
        return np.concatenate((self.scene.fixed_observation, np.array(last, np.float32), outcome.observed_choices))


@dataclass(frozen=True)
class Feedback:
    """What the last rigorous measurement tells the high level.

    :param granted: size fractions of the measured policy, (blocks,)
    :param severity: see `rewards.severity`
    """

    drop_points: float
    size_ratio: float
    severity: float
    granted: NDArray[np.float64]


class NetworkScene:
    """What all high-level agents share: the treasury, the blocks' rate curves, the last feedback.

    :param curves: per strategy, one curve per block
    """

    def __init__(self, curves: Mapping[Strategy, Sequence[RateCurve]]) -> None:
        self._curves = curves
        self.block_count = len(curves[Strategy.AUTO])
        self._treasury: Treasury | None = None

    def aim(self, treasury: Treasury, law: ColdStart, feedback: Feedback, progress: float) -> None:
        """Starts a cycle.

        :param law: predicts the drop of budgets from the distortion their blocks' rate curves give
        :param progress: part of the cycles that is done, 0 to 1
        """
        self._treasury, self._law, self.feedback, self._progress = treasury, law, feedback, progress
        exposure = treasury.shares * (treasury.sensitivities + 1e-3)
        self._exposure = exposure / exposure.sum()

    @property
    def treasury(self) -> Treasury:
        """
        :raises RunError: before the first aim
        """
        if self._treasury is None:
            raise RunError("the network has no goal yet: call aim() first")
        return self._treasury

    def decode(self, action: Action) -> tuple[list[int], list[Strategy]]:
        """Size level and strategy per block.

        :param action: (2 * blocks,)
        """
        pairs = action.reshape(-1, 2).tolist()
        return [level for level, _ in pairs], [STRATEGIES[strategy] for _, strategy in pairs]

    def middle(self) -> Action:
        """The action that asks for the warm start's sizes, (2 * blocks,)."""
        return np.array([len(SIZE_LEVELS) // 2, STRATEGIES.index(Strategy.AUTO)] * self.block_count, np.int64)

    def predicted_drop(self, granted: NDArray[np.float64], strategies: Sequence[Strategy]) -> float:
        """Drop in points if every block spent its grant along the rate curve of its strategy.

        :param granted: size fractions, (blocks,)
        """
        total = 0.0
        for block, (fraction, strategy) in enumerate(zip(granted.tolist(), strategies, strict=True)):
            curve = self._curves[strategy][block]
            # A pruning budget below what its bits can reach is granted fewer bits: then it is an `auto` one.
            total += (curve if curve.reaches(fraction) else self._curves[Strategy.AUTO][block]).distortion(fraction)
        return self._law.of_distortion(total)

    def reward(self, action: Action, weights: Weights) -> tuple[float, NDArray[np.float64]]:
        """Reward and granted size fractions, (blocks,), of an action."""
        treasury, goal = self.treasury, self.treasury.goal_fraction
        levels, strategies = self.decode(action)
        wishes = treasury.wishes(levels)
        granted, strategies = treasury.granted(wishes, strategies)
        reward = network_reward(
            accuracy=accuracy_term(self.predicted_drop(granted, strategies), treasury.max_drop),
            sensitivity=sensitivity_term(granted, treasury.around, treasury.sensitivities),
            feedback=feedback_term(self.feedback.severity, granted, self.feedback.granted, goal, self._exposure),
            gap=abs(float(treasury.shares @ wishes) / goal - 1),
            spread=float(granted.std()) / goal,
            weights=weights,
        )
        return reward, granted

    def observe(self, granted: NDArray[np.float64]) -> Observation:
        """Last measured drop and size, progress, goal; per block sensitivity, share of parameters, last budget."""
        treasury, feedback = self.treasury, self.feedback
        head = (
            _bounded(feedback.drop_points / treasury.max_drop / 4),
            _bounded(feedback.size_ratio - 1),
            self._progress,
            _size(treasury.goal_fraction),
        )
        relative = np.tanh(granted / treasury.goal_fraction - 1)
        return np.concatenate((head, treasury.sensitivities, treasury.shares, relative)).astype(np.float32)


class NetworkEnvironment(gym.Env[Observation, Action]):
    """High level: choose a size level and a strategy for every block; budgets are balanced to meet the goal."""

    def __init__(self, scene: NetworkScene, weights: Weights, episode_steps: int = EPISODE_STEPS) -> None:
        self.scene, self.weights, self._episode_steps = scene, weights, episode_steps
        self.action_space = spaces.MultiDiscrete([len(SIZE_LEVELS), len(STRATEGIES)] * scene.block_count)
        self.observation_space = spaces.Box(-1.0, 1.0, (4 + 3 * scene.block_count,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self._step = 0
        return self.scene.observe(self.scene.feedback.granted), {}

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        reward, granted = self.scene.reward(action, self.weights)
        self._step += 1
        return self.scene.observe(granted), reward / REWARD_SCALE, self._step >= self._episode_steps, False, {}


def curves_by_strategy(problem: Problem, bounds: Bounds) -> dict[Strategy, list[RateCurve]]:
    """Rate curves of every block under each strategy, for `NetworkScene`."""
    lowest = min(max(bounds.lowest, PRUNING_PRECISION), bounds.highest)
    tightest = {
        Strategy.QUANTIZATION: replace(bounds, min_keep=1.0),
        Strategy.PRUNING: replace(bounds, lowest=lowest),
        Strategy.AUTO: bounds,
    }
    return {
        strategy: [rate_curve(problem, block, limits) for block in range(len(problem.blocks))]
        for strategy, limits in tightest.items()
    }

"""What all rivals share: a byte target, the memory of what was proposed, as many proposals as the method makes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from hirelc.config import SearchConfig
from hirelc.policy import Choice, Goal, Measurement, Policy
from hirelc.search.bounds import Bounds
from hirelc.search.budgets import ByteTarget
from hirelc.search.fitting import excess, fit_to_bytes
from hirelc.search.problem import Problem, Proposal
from hirelc.search.surrogate import Surrogate, network_features
from hirelc.seeds import stream_seed

Choices = tuple[tuple[Choice, ...], ...]


class Rival(ABC):
    """A `SearchStrategy` that only has to say which policy comes next."""

    ORIGIN: str

    def __init__(self, problem: Problem, goal: Goal, config: SearchConfig) -> None:
        self.problem, self.config = problem, config
        self.bounds = Bounds.of(config)
        self.target = ByteTarget(problem, goal)
        self._proposed: set[Policy] = set()

    @abstractmethod
    def next(self, cycle: int, index: int) -> Proposal | None:
        """The next proposal of a cycle; None when none is left."""

    def propose(self, cycle: int) -> Sequence[Proposal]:
        """Two proposals in cycle 0, then one, as many as the hierarchical search makes; fewer when none is left."""
        proposals = [self.next(cycle, index) for index in range(2 if cycle == 0 else 1)]
        return [proposal for proposal in proposals if proposal is not None]

    def observe(self, proposal: Proposal, measurement: Measurement) -> Mapping[str, Any]:
        """Moves the byte target of a goal that limits only the drop; learns nothing else."""
        if measurement.failure is None:
            self.target.observe(measurement.size_bytes, measurement.drop_points)
        return {
            "predicted_drop": proposal.predicted_drop,
            "measured_drop": measurement.drop_points,
            "failure": measurement.failure,
        }

    def fitted(self, choices: Sequence[Sequence[Choice]]) -> Choices:
        """The choices, moved to the limits like every vote is."""
        return fit_to_bytes(self.problem, choices, self.target.bytes, [self.bounds] * len(self.problem.blocks)).choices

    def fits(self, choices: Sequence[Sequence[Choice]]) -> bool:
        """Whether these canonical choices are within all limits."""
        return excess(self.problem, choices, self.target.bytes) == 0

    def unseen(
        self, choices: Sequence[Sequence[Choice]], predicted_drop: float | None = None, **record: Any
    ) -> Proposal | None:
        """A proposal of canonical choices; None when they were proposed before.

        :param record: what to journal about how they came about
        """
        decided = tuple(map(tuple, choices))
        policy = self.problem.policy(decided)
        if policy in self._proposed:
            return None
        self._proposed.add(policy)
        known = {"byte_target": self.target.bytes, "size_bytes": self.problem.file_bytes(decided)}
        return Proposal(policy, decided, self.ORIGIN, predicted_drop, (), {**known, **record})


class LearningRival(Rival):
    """A rival that predicts drops as the hierarchical search does."""

    def __init__(self, problem: Problem, goal: Goal, config: SearchConfig, seed: int) -> None:
        super().__init__(problem, goal, config)
        self.surrogate = Surrogate(stream_seed(seed, "surrogate"), config.surrogate_min_samples)

    def predicted(self, choices: Sequence[Sequence[Choice]]) -> float:
        """Drop in points."""
        return self.surrogate.predict(network_features(self.problem, choices))

    def observe(self, proposal: Proposal, measurement: Measurement) -> Mapping[str, Any]:
        """Teaches the surrogate, and moves the byte target of a goal that limits only the drop."""
        if measurement.failure is None:
            inputs = network_features(self.problem, proposal.choices)
            self.surrogate.observe(inputs, measurement.judged_drop, proposal.predicted_drop)
        return {**super().observe(proposal, measurement), "surrogate": self.surrogate.record()}

"""A `Problem` seen through another: whole networks are asked about in the terms of the one behind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from hirelc.policy import Choice, Limits, Policy
from hirelc.search.problem import Problem

Kernels = tuple[Choice, ...]


class ProblemView(ABC):
    """What holds for every view; blocks, and what is asked about one of them, are its own."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    @abstractmethod
    def translated(self, choices: Sequence[Sequence[Choice]]) -> tuple[Kernels, ...]:
        """Choices of the whole network, as the problem behind takes them."""

    @property
    def original_bytes(self) -> int:
        return self._problem.original_bytes

    @property
    def fixed_bytes(self) -> int:
        return self._problem.fixed_bytes

    @property
    def limits(self) -> Limits:
        return self._problem.limits

    def policy(self, choices: Sequence[Sequence[Choice]]) -> Policy:
        return self._problem.policy(self.translated(choices))

    def file_bytes(self, choices: Sequence[Sequence[Choice]]) -> int:
        return self._problem.file_bytes(self.translated(choices))

    def macs(self, choices: Sequence[Sequence[Choice]]) -> int:
        return self._problem.macs(self.translated(choices))

    def latency_ms(self, choices: Sequence[Sequence[Choice]]) -> float | None:
        return self._problem.latency_ms(self.translated(choices))

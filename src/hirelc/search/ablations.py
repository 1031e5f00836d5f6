"""The method with one part off: what each part is worth shows in what is lost without it.

What an agent could see or change is taken out of its view of the network, so that the search itself stays as it is.
Three parts live inside the search: surrogate, ensemble and high level (`HierarchicalSearch`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hirelc.config import SearchConfig
from hirelc.policy import Choice, Goal, Granularity, Measurement
from hirelc.search.bounds import alike
from hirelc.search.budgets import ByteTarget
from hirelc.search.hierarchy import HierarchicalSearch, Progress
from hirelc.search.problem import BlockInfo, Problem, Proposal, SearchStrategy
from hirelc.search.views import Kernels, ProblemView
from hirelc.seeds import stream_seed

NEUTRAL = 0.5  # a sensitivity that moves no budget
LEAST_KEEP = 0.1  # where channels are all that may go
UNTOUCHED = Choice(granularity=Granularity.LEARNED)  # 8 bits: as good as float32

Force = Callable[[int, Kernels], Kernels]


class View(ProblemView):
    """A `Problem` in which every choice is first made what a part's absence leaves of it.

    :param force: (block, choices) -> choices
    :param blocks: as agents are to see them
    """

    def __init__(self, problem: Problem, force: Force, blocks: tuple[BlockInfo, ...]) -> None:
        super().__init__(problem)
        self._force, self._blocks = force, blocks

    @property
    def blocks(self) -> tuple[BlockInfo, ...]:
        return self._blocks

    def block_bytes(self, block: int, choices: Sequence[Choice]) -> int:
        return self._problem.block_bytes(block, self._force(block, tuple(choices)))

    def block_distortion(self, block: int, choices: Sequence[Choice]) -> float:
        return self._problem.block_distortion(block, self._force(block, tuple(choices)))

    def canonical(self, block: int, choices: Sequence[Choice]) -> Kernels:
        return self._problem.canonical(block, self._force(block, tuple(choices)))

    def block_macs(self, block: int, choices: Sequence[Choice]) -> int:
        return self._problem.block_macs(block, self._force(block, tuple(choices)))

    def block_latency(self, block: int, choices: Sequence[Choice]) -> float:
        return self._problem.block_latency(block, self._force(block, tuple(choices)))

    def translated(self, choices: Sequence[Sequence[Choice]]) -> tuple[Kernels, ...]:
        return tuple(self._force(block, tuple(decided)) for block, decided in enumerate(choices))


def without_sensitivity(problem: Problem) -> Problem:
    """All kernels and blocks look alike: no observation, budget or reward follows the Fisher information."""
    blocks = tuple(
        replace(
            block,
            sensitivity=NEUTRAL,
            kernels=tuple(replace(kernel, sensitivity=NEUTRAL) for kernel in block.kernels),
        )
        for block in problem.blocks
    )
    return View(problem, lambda block, choices: choices, blocks)


def without_quantization(problem: Problem) -> Problem:
    """Every kernel in 8-bit integers with learned steps; channels are all that may go."""

    def force(block: int, choices: Kernels) -> Kernels:
        return tuple(replace(UNTOUCHED, keep_ratio=choice.keep_ratio) for choice in choices)

    return View(problem, force, problem.blocks)


def pruning_only(config: SearchConfig, min_keep: float) -> SearchConfig:
    """Settings for what `without_quantization` shows: nothing but 8 bits, and that many channels at least."""
    return replace(config, min_bits=UNTOUCHED.bits, max_bits=UNTOUCHED.bits, min_keep=min_keep)


def with_keeps(problem: Problem, keeps: Sequence[Sequence[float]]) -> Problem:
    """The channels are decided already; formats are all that may change.

    :param keeps: keep_ratio per kernel, per block
    """

    def force(block: int, choices: Kernels) -> Kernels:
        return tuple(replace(choice, keep_ratio=keep) for choice, keep in zip(choices, keeps[block], strict=True))

    blocks = tuple(
        replace(block, kernels=tuple(replace(kernel, prunable=False) for kernel in block.kernels)) for block in problem.blocks
    )
    return View(problem, force, blocks)


def without_pruning(problem: Problem) -> Problem:
    """All channels stay."""
    return with_keeps(problem, [[1.0] * len(block.kernels) for block in problem.blocks])


class Sequential:
    """`SearchStrategy`: first the channels, with everything in 8 bits, then the formats of what is left.

    Halfway, on the scale of ratios, between the unpruned 8-bit file and the goal the agents' vote on channels is
    taken as final; all rigorous measurements go to the second half.
    """

    def __init__(self, problem: Problem, goal: Goal, config: SearchConfig, seed: int, progress: Progress | None) -> None:
        self._problem, self._goal, self._seed, self._progress = problem, goal, seed, progress
        self._config = replace(config, without=None)
        self._second: HierarchicalSearch | None = None

    def propose(self, cycle: int) -> Sequence[Proposal]:
        """See `HierarchicalSearch.propose`; the channels are decided in the first call."""
        if self._second is None:
            keeps, pruned_bytes = self._pruned()
            self._second = HierarchicalSearch(
                with_keeps(self._problem, keeps), self._goal, self._config, self._seed, self._progress
            )
            first, *others = self._second.propose(cycle)
            record = {**(first.record or {}), "pruned_first": {"keep_ratios": keeps, "size_bytes": pruned_bytes}}
            return [replace(first, record=record), *others]
        return self._second.propose(cycle)

    def observe(self, proposal: Proposal, measurement: Measurement) -> Mapping[str, Any]:
        assert self._second is not None  # a proposal comes from it
        return self._second.observe(proposal, measurement)

    def _pruned(self) -> tuple[list[list[float]], int]:
        """keep_ratio per kernel and block, and the length of the 8-bit file."""
        problem = without_quantization(self._problem)
        unpruned = problem.file_bytes([problem.canonical(b, alike(block, 0)) for b, block in enumerate(problem.blocks)])
        middle = round((unpruned * ByteTarget(self._problem, self._goal).bytes) ** 0.5)
        seed = stream_seed(self._seed, "channels first")
        config = replace(pruning_only(self._config, self._config.min_keep), cycles=1, trials=1)
        search = HierarchicalSearch(problem, Goal(max_bytes=middle), config, seed, self._progress)
        vote = search.propose(0)[-1]
        return [[choice.keep_ratio for choice in decided] for decided in vote.choices], problem.file_bytes(vote.choices)


def hierarchical(
    problem: Problem, goal: Goal, config: SearchConfig, seed: int, progress: Progress | None = None
) -> SearchStrategy:
    """The method, without the part that `config.without` names."""
    if config.without == "joint":
        return Sequential(problem, goal, config, seed, progress)
    if config.without == "sensitivity":
        problem = without_sensitivity(problem)
    elif config.without == "pruning":
        problem = without_pruning(problem)
    elif config.without == "quantization":
        problem = without_quantization(problem)
        config = pruning_only(config, min(config.min_keep, LEAST_KEEP))
    return HierarchicalSearch(problem, goal, config, seed, progress)

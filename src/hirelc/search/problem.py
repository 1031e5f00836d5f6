"""What the search knows of a network: numbers, no tensors.

`Problem` is the only view that `search/` has. The pipeline implements it with the cost model and the
logit-MSE proxy; tests implement it with an analytic fake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hirelc.policy import Budget, Choice, Limits, Measurement, Policy


@dataclass(frozen=True)
class KernelInfo:
    """One kernel of a block.

    :param sensitivity: Fisher sensitivity, normalised over all kernels to [0, 1]
    :param prunable: False when its keep_ratio must stay 1
    :param coupling: kernels of a block with the same number lose the same channels; None for one that stands alone
    """

    name: str
    weights: int
    sensitivity: float
    prunable: bool
    coupling: int | None = None


@dataclass(frozen=True)
class BlockInfo:
    """One block. `position` is 0 for the first and 1 for the last; `share` is its part of the blocks' weights."""

    name: str
    kernels: tuple[KernelInfo, ...]
    position: float
    share: float
    sensitivity: float

    @property
    def weights(self) -> int:
        return sum(kernel.weights for kernel in self.kernels)


class Problem(Protocol):
    """Numbers about a network, cheap to ask for thousands of times (implementations memoise)."""

    @property
    def blocks(self) -> tuple[BlockInfo, ...]: ...

    @property
    def original_bytes(self) -> int:
        """Bytes of the fp32 file of the original network."""

    @property
    def fixed_bytes(self) -> int:
        """Bytes of the compressed file that no block decides: frame, norms, biases, headers."""

    @property
    def limits(self) -> Limits:
        """What the goal allows besides the file's length, which a search aims at from cycle to cycle."""

    def block_bytes(self, block: int, choices: Sequence[Choice]) -> int:
        """Payload bytes of one block (codes, scales, masks) under one choice per kernel, in kernel order."""

    def block_distortion(self, block: int, choices: Sequence[Choice]) -> float:
        """Logit-MSE proxy of compressing this block alone, divided by the variance of the original's logits.

        Zero or more; additive over blocks to first order.
        """

    def canonical(self, block: int, choices: Sequence[Choice]) -> tuple[Choice, ...]:
        """The choices as they take effect: keep ratios snapped to whole channels, coupled kernels made equal."""

    def policy(self, choices: Sequence[Sequence[Choice]]) -> Policy:
        """The whole network's policy: the blocks' choices and the frame's fixed ones."""

    def file_bytes(self, choices: Sequence[Sequence[Choice]]) -> int:
        """Exact length of the whole file under these choices."""

    def block_macs(self, block: int, choices: Sequence[Choice]) -> int:
        """Multiply-accumulates of one block's kernels for one sample."""

    def macs(self, choices: Sequence[Sequence[Choice]]) -> int:
        """Multiply-accumulates of the whole network for one sample: those of the slim network, exactly."""

    def block_latency(self, block: int, choices: Sequence[Choice]) -> float:
        """Milliseconds that one block's kernels take in a call, by the latency table; 0 without one."""

    def latency_ms(self, choices: Sequence[Sequence[Choice]]) -> float | None:
        """Milliseconds of a call of the whole network, by the latency table; None without one."""


INCUMBENT = "incumbent"  # origin of the best policy so far, proposed once more: others have to beat it


@dataclass(frozen=True)
class Proposal:
    """A policy to measure next and how it came about.

    :param choices: one choice per kernel, per block
    :param origin: who proposed it ("vote", "reference", "random", "uniform", `INCUMBENT`)
    :param record: journal entries (votes, rewards, predictions), JSON-ready
    :param trial: the trials of a cycle are first measured with little training; only the best of them is measured in full
    """

    policy: Policy
    choices: tuple[tuple[Choice, ...], ...]
    origin: str
    predicted_drop: float | None
    budgets: tuple[Budget, ...] = ()
    record: Mapping[str, Any] | None = None
    trial: bool = False


class SearchStrategy(Protocol):
    """What the pipeline drives: ask for a proposal, tell what it was worth. Deterministic for a seed."""

    def propose(self, cycle: int) -> Sequence[Proposal]:
        """The policies to measure in this cycle: at least one in cycle 0, later none when no new one is left."""

    def observe(self, proposal: Proposal, measurement: Measurement) -> Mapping[str, Any]:
        """Learns from a rigorous measurement; returns what to journal (predicted beside measured)."""

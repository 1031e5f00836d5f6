"""The search's view of a real network: bytes from `cost`, distortion from the logit proxy. Memoised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

from hirelc.compression.prune import canonical, effective_keep
from hirelc.cost import SizeModel, block_macs, blocks_are_alone, macs
from hirelc.measure.latency import LatencyTable
from hirelc.measure.proxy import LogitProxy
from hirelc.measure.sensitivity import Sensitivity
from hirelc.network.spec import Pruning
from hirelc.policy import Choice, Limits, Policy
from hirelc.search.problem import BlockInfo, KernelInfo

Choices = Sequence[Choice]


class _Rest(NamedTuple):
    size_bytes: float
    macs: int
    latency_ms: float


class Landscape:
    """Implements `search.problem.Problem`.

    :param sizes: expected bytes after fine-tuning
    :param frame: choices of the kernels outside any block
    :param limits: what the goal allows besides bytes
    :param latency: needed where the latency is limited
    """

    def __init__(
        self,
        sizes: SizeModel,
        sensitivity: Sensitivity,
        proxy: LogitProxy,
        frame: Mapping[str, Choice],
        limits: Limits | None = None,
        latency: LatencyTable | None = None,
    ) -> None:
        self.sizes = sizes
        self.spec = sizes.spec
        self.proxy = proxy
        self.sensitivity = sensitivity
        self.frame = frame
        self.limits = limits or Limits()
        self.latency = latency
        self._bytes: dict[tuple[int, tuple[Choice, ...]], int] = {}
        self._distortions: dict[tuple[int, tuple[Choice, ...]], float] = {}
        self._shares: dict[tuple[int, tuple[Choice, ...]], float] = {}
        self._macs: dict[tuple[int, tuple[Choice, ...]], int] = {}
        self._latencies: dict[tuple[int, tuple[Choice, ...]], float] = {}
        self._canonical: dict[tuple[int, tuple[Choice, ...]], tuple[Choice, ...]] = {}

    @cached_property
    def blocks(self) -> tuple[BlockInfo, ...]:
        total = sum(k.weights for k in self.spec.kernels if k.block is not None)
        last = max(1, len(self.spec.blocks) - 1)
        couplings = self.spec.coupling_of
        infos = []
        for i, block in enumerate(self.spec.blocks):
            kernels = tuple(
                KernelInfo(name, k.weights, self.sensitivity.kernels[name], k.pruning is not Pruning.NONE, couplings.get(name))
                for name, k in ((name, self.spec.by_name[name]) for name in block.kernels)
            )
            share = sum(k.weights for k in kernels) / total
            infos.append(BlockInfo(block.name, kernels, i / last, share, self.sensitivity.blocks[i]))
        return tuple(infos)

    @property
    def original_bytes(self) -> int:
        return self.spec.original_bytes

    @cached_property
    def fixed_bytes(self) -> int:
        plain = [tuple(Choice() for _ in block.kernels) for block in self.spec.blocks]
        return self.file_bytes(plain) - sum(self.block_bytes(i, choices) for i, choices in enumerate(plain))

    def block_bytes(self, block: int, choices: Choices) -> int:
        key = (block, tuple(choices))
        if key not in self._bytes:
            self._bytes[key] = self.sizes.block_bytes(self._named(block, self.canonical(block, choices)), block)
        return self._bytes[key]

    def block_distortion(self, block: int, choices: Choices) -> float:
        key = (block, tuple(choices))
        if key not in self._distortions:
            names = self.spec.blocks[block].kernels
            self._distortions[key] = self.proxy.distortion(names, self.canonical(block, choices))
        return self._distortions[key]

    def canonical(self, block: int, choices: Choices) -> tuple[Choice, ...]:
        key = (block, tuple(choices))
        if key not in self._canonical:
            named = self._named(block, choices)
            self._canonical[key] = tuple(
                replace(c, keep_ratio=effective_keep(self.spec, named, self.spec.by_name[name])) for name, c in named.items()
            )
        return self._canonical[key]

    def policy(self, choices: Sequence[Choices]) -> Policy:
        decided = dict(self.frame)
        for block, block_choices in enumerate(choices):
            decided.update(self._named(block, block_choices))
        return canonical(self.spec, Policy.of({k.name: decided[k.name] for k in self.spec.kernels}))

    def choices(self, policy: Policy) -> tuple[tuple[Choice, ...], ...]:
        """What a policy decides, one choice per kernel, per block: the inverse of `policy`, but for the frame's choices."""
        return tuple(tuple(policy[name] for name in block.kernels) for block in self.spec.blocks)

    def file_bytes(self, choices: Sequence[Choices]) -> int:
        if not self._additive:
            return self.sizes.file_bytes(self.policy(choices))
        total = self._rest.size_bytes + sum(self._share(block, decided) for block, decided in enumerate(choices))
        return math.ceil(total - 1e-6)  # which is what adding up in another order may change

    def _share(self, block: int, choices: Choices) -> float:
        key = (block, tuple(choices))
        if key not in self._shares:
            self._shares[key] = self.sizes.block_share(self._named(block, self.canonical(block, choices)), block)
        return self._shares[key]

    @cached_property
    def _additive(self) -> bool:
        return blocks_are_alone(self.spec)

    @cached_property
    def _rest(self) -> _Rest:
        """What no block decides, where the blocks add up."""
        plain = [tuple(Choice() for _ in block.kernels) for block in self.spec.blocks]
        policy, blocks = self.policy(plain), range(len(plain))
        latency = 0.0 if self.latency is None else self.latency.predict(self.spec, policy)
        return _Rest(
            self.sizes.exact_bytes(policy) - sum(self._share(block, plain[block]) for block in blocks),
            macs(self.spec, policy) - sum(self.block_macs(block, plain[block]) for block in blocks),
            latency - sum(self.block_latency(block, plain[block]) for block in blocks),
        )

    def block_macs(self, block: int, choices: Choices) -> int:
        key = (block, tuple(choices))
        if key not in self._macs:
            self._macs[key] = block_macs(self.spec, self._named(block, self.canonical(block, choices)), block)
        return self._macs[key]

    def macs(self, choices: Sequence[Choices]) -> int:
        if not self._additive:
            return macs(self.spec, self.policy(choices))
        return self._rest.macs + sum(self.block_macs(block, decided) for block, decided in enumerate(choices))

    def block_latency(self, block: int, choices: Choices) -> float:
        if self.latency is None:
            return 0.0
        key = (block, tuple(choices))
        if key not in self._latencies:
            named = self._named(block, self.canonical(block, choices))
            self._latencies[key] = self.latency.kernels_ms(self.spec, named)
        return self._latencies[key]

    def latency_ms(self, choices: Sequence[Choices]) -> float | None:
        if self.latency is None:
            return None
        if not self._additive:
            return self.latency.predict(self.spec, self.policy(choices))
        return self._rest.latency_ms + sum(self.block_latency(block, decided) for block, decided in enumerate(choices))

    def _named(self, block: int, choices: Choices) -> Mapping[str, Choice]:
        return dict(zip(self.spec.blocks[block].kernels, choices, strict=True))

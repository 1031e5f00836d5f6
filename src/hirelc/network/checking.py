"""Whether channels can go: the slim network is compared with the masked one by forward passes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hirelc.network.calling import logits_of, steady_call
from hirelc.network.graph import TRACE_ERRORS
from hirelc.network.kernels import Candidate
from hirelc.network.spec import Coupling, Kernel, NetworkSpec, Pruning
from hirelc.network.surgery import Kept, masked_state, slim

log = logging.getLogger("hirelc")
TOLERANCE = 1e-4  # of the largest output


class Checker:
    """Compares the slim with the masked network at every module that reads the dimension, and at the end."""

    def __init__(self, network: nn.Module, inputs: Any, kernels: Sequence[Candidate]) -> None:
        self.network = network
        self.inputs = inputs
        self.kernels = {k.name: k for k in kernels}

    def holds(self, coupling: Coupling, watched: Sequence[str] = ()) -> bool:
        """Whether removing units equals zeroing them, for up to three random selections.

        :param watched: further modules whose results are compared
        """
        if coupling.units < 2 or not self._fits(coupling):
            return False
        spec = _spec_for_check(self.kernels.values(), coupling)
        generator = np.random.default_rng(0)
        readers = [m.tensor.rpartition(".")[0] for m in coupling.members if m.tensor in self.kernels and not m.produces]
        readers = list(dict.fromkeys([*readers, *watched]))
        half = max(1, coupling.units // 2)
        # fused inference paths of torch step aside for hooks: the last comparison is without any
        looks = [*((count, readers) for count in sorted({1, half, coupling.units - 1})), (half, [])]
        for count, looked in looks:
            units = tuple(sorted(int(u) for u in generator.choice(coupling.units, count, replace=False)))
            kept = Kept(units={0: units})
            try:
                expected = _outputs(self.network, self.inputs, looked, masked_state(self.network, spec, kept))
                actual = _outputs(slim(self.network, spec, kept, share=True), self.inputs, looked, None)
            except TRACE_ERRORS as error:
                log.debug("coupling of %s refused: %s", coupling.producers, error)
                return False
            if not all(name in actual and _close(expected[name], actual[name]) for name in expected):
                return False
        return True

    def _fits(self, coupling: Coupling) -> bool:
        named = dict(self.network.named_parameters()) | dict(self.network.named_buffers())
        everything = range(coupling.units)
        return all(m.tensor in named and m.indices(everything).max() < named[m.tensor].shape[m.dim] for m in coupling.members)


def rows_that_fail(network: nn.Module, inputs: Any, kernels: Iterable[Candidate]) -> frozenset[str]:
    """Kernels whose rows cannot be left out and scattered back: code other than their own module reads the weight.

    (The fused inference path of nn.TransformerEncoderLayer does.)
    """
    failing = set()
    open_questions = [list(kernels)]
    while open_questions:
        asked = open_questions.pop()
        if not asked or _scatters(network, inputs, asked):
            continue
        if len(asked) == 1:
            failing.add(asked[0].name)
        else:
            open_questions += [asked[: len(asked) // 2], asked[len(asked) // 2 :]]
    return frozenset(failing)


def _scatters(network: nn.Module, inputs: Any, kernels: Sequence[Candidate]) -> bool:
    """Whether the network with half of the rows left out computes the same as with these rows zeroed."""
    spec = _spec_for_check(kernels)
    kept = Kept(rows={k.name: tuple(range(0, k.shape[k.channel_dim], 2)) for k in kernels})
    for looked in ([], [k.module for k in kernels]):
        try:
            expected = _outputs(network, inputs, looked, masked_state(network, spec, kept))
            actual = _outputs(slim(network, spec, kept, share=True), inputs, looked, None)
        except TRACE_ERRORS as error:
            log.debug("rows of %s refused: %s", [k.name for k in kernels], error)
            return False
        if not all(name in actual and _close(expected[name], actual[name]) for name in expected):
            return False
    return True


def _close(expected: Tensor, actual: Tensor) -> bool:
    if expected.shape != actual.shape:
        return False
    finite = torch.isfinite(expected)  # logits that a network forbids are minus infinity in both
    if not torch.equal(expected[~finite], actual[~finite]) or not bool(torch.isfinite(actual[finite]).all()):
        return False
    if not bool(finite.any()):
        return True
    expected, actual = expected[finite].float(), actual[finite].float()
    return float((expected - actual).abs().max()) <= TOLERANCE * (float(expected.abs().max()) + 1e-12)


def _outputs(network: nn.Module, inputs: Any, readers: Sequence[str], state: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """What each reader returns, call by call, and the logits."""
    seen: dict[str, Tensor] = {}
    calls = dict.fromkeys(readers, 0)

    def record(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, Tensor):
                seen[f"{name}, call {calls[name]}"] = first
                calls[name] += 1

        return hook

    handles = [network.get_submodule(name).register_forward_hook(record(name)) for name in readers]
    try:
        with torch.no_grad():
            seen["logits"] = logits_of(steady_call(network, inputs, state))
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _spec_for_check(kernels: Iterable[Candidate], *couplings: Coupling) -> NetworkSpec:
    listed = tuple(
        Kernel(k.name, k.module, k.kind, k.shape, k.channel_dim, k.groups, k.macs, None, Pruning.COUPLED) for k in kernels
    )
    return NetworkSpec(listed, (), couplings, (), (), 1)

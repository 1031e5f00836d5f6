"""BatchNorm statistics for the weights that training ended with.

Running statistics are a mean over the last few batches, taken while the weights still moved. A mean over many batches,
with the weights at rest, fits them better: at half a bit per weight that is worth 0.1 points (docs/decisions/0019).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

PART, LEAST, MOST = 0.05, 8, 60  # of a fine-tune's batches
SHORT = 0.5  # of a fine-tune with few batches: its running statistics are mostly those of the weights before it


def settling_batches(network: nn.Module, batches: int) -> int:
    """How many of a fine-tune's batches are kept for this; 0 where there is nothing to settle."""
    if not any(_norms(network)):
        return 0
    return min(MOST, max(int(PART * batches), min(LEAST, int(SHORT * batches))))


def least_settling(network: nn.Module) -> int:
    """How many batches are worth it for a network that is not trained; 0 where there is nothing to settle."""
    return LEAST if any(_norms(network)) else 0


@torch.no_grad()
def settle(network: nn.Module, inputs: Iterable[Any], forward: Callable[[Any], Any]) -> None:
    """Replaces the running statistics, in place; everything else runs as in use. Norms that are not called keep theirs.

    :param inputs: batches; :param forward: calls the network with one
    """
    network.eval()
    before = [(norm, norm.momentum, {k: v.clone() for k, v in norm.named_buffers()}) for norm in _norms(network)]
    for norm, _, _ in before:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
        norm.train()
    try:
        for batch in inputs:
            forward(batch)
    finally:
        for norm, momentum, buffers in before:
            norm.momentum = momentum
            norm.eval()
            called = norm.num_batches_tracked is not None and int(norm.num_batches_tracked) > 0
            finite = all(bool(buffer.isfinite().all()) for buffer in norm.buffers())
            if not (called and finite):
                norm.load_state_dict({**norm.state_dict(), **buffers})


def _norms(network: nn.Module) -> Iterable[_BatchNorm]:
    return (m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None)

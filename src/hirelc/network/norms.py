"""BatchNorm folded into two numbers per channel, which is all that a network in eval mode needs of it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def fold_batchnorms(network: nn.Module) -> frozenset[str]:
    """Rewrites each BatchNorm, in place, so that its statistics are the neutral ones.

    weight becomes w / sqrt(var + eps), bias becomes b - mean * w / sqrt(var + eps); then mean = 0 and
    var = 1 - eps, which compute the same in eval mode.

    :returns: names of the state that needs no storing: neutral statistics and step counters
    """
    dropped = set()
    for path, module in network.named_modules():
        if not isinstance(module, _BatchNorm):
            continue
        prefix = f"{path}." if path else ""
        dropped.add(f"{prefix}num_batches_tracked")
        if module.running_mean is None or module.running_var is None or module.weight is None or module.bias is None:
            continue
        with torch.no_grad():
            factor = module.weight.double() / (module.running_var.double() + module.eps).sqrt()
            module.bias.copy_(module.bias.double() - module.running_mean.double() * factor)
            module.weight.copy_(factor)
        neutralise(module)
        dropped |= {f"{prefix}running_mean", f"{prefix}running_var"}
    return frozenset(dropped)


def neutralise(module: _BatchNorm) -> None:
    """Statistics that leave the input as it is."""
    if module.running_mean is not None and module.running_var is not None:
        module.running_mean.zero_()
        module.running_var.fill_(1 - module.eps)

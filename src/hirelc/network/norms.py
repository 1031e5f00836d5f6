"""BatchNorm folded into two numbers per channel, which is all that a network in eval mode needs of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

FAINT = 10.0  # times eps: a variance below it is mostly what running statistics remember of a channel that is constant now
TAME = 4.0  # times the middle factor, which is enough for those


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
        if not _can_fold(module):
            continue
        with torch.no_grad():
            factor, shift = _folded(module)
            module.weight.copy_(factor)
            module.bias.copy_(shift)
        neutralise(module)
        dropped |= {f"{prefix}running_mean", f"{prefix}running_var"}
    return frozenset(dropped)


def folded_norms(network: nn.Module) -> dict[str, Tensor]:
    """Weight and bias of each BatchNorm as `fold_batchnorms` would leave them, by name; the network is not changed."""
    values = {}
    for path, module in network.named_modules():
        if isinstance(module, _BatchNorm) and _can_fold(module):
            for name, value in zip(("weight", "bias"), _folded(module), strict=True):
                values[f"{path}.{name}".removeprefix(".")] = value
    return values


@torch.no_grad()
def _folded(module: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Factor and shift, of the dtype of the parameters."""
    assert module.running_mean is not None and module.running_var is not None
    factor = module.weight.double() / (module.running_var.double() + module.eps).sqrt()
    shift = module.bias.double() - module.running_mean.double() * factor
    return factor.to(module.weight.dtype), shift.to(module.bias.dtype)


@dataclass(frozen=True)
class Centre:
    """What the shift of a folded BatchNorm is made of: bias - mean * factor.

    :param factor: name of the state that holds the factor once folded
    :param mean: of the channels, :param bias: likewise; float64, (channels,)
    :param deviation: of what comes out of a channel, in the middle of all channels
    :param faint: channels that hardly vary, whose factors are out of all proportion; bool, (channels,)
    """

    factor: str
    mean: Tensor
    bias: Tensor
    deviation: float
    faint: Tensor

    def tamed(self, factor: Tensor) -> Tensor:
        """Factors, (channels,), without those of faint channels that would set the step for all others."""
        most = TAME * float(factor.abs().median())
        return torch.where(self.faint, factor.clamp(-most, most), factor)


def batchnorm_centres(network: nn.Module) -> dict[str, Centre]:
    """The centre of each BatchNorm that `fold_batchnorms` would fold, by the name of its bias."""
    centres = {}
    for path, module in network.named_modules():
        if isinstance(module, _BatchNorm) and _can_fold(module):
            mean, bias = (tensor.detach().double().clone() for tensor in (module.running_mean, module.bias))  # type: ignore[union-attr]
            assert module.running_var is not None
            faint = torch.lt(module.running_var, FAINT * module.eps)
            deviation = float(module.weight.detach().abs().median())
            centres[f"{path}.bias".removeprefix(".")] = Centre(f"{path}.weight".removeprefix("."), mean, bias, deviation, faint)
    return centres


def _can_fold(module: _BatchNorm) -> bool:
    parts = (module.running_mean, module.running_var, module.weight, module.bias)
    return all(part is not None for part in parts)


def neutralise(module: _BatchNorm) -> None:
    """Statistics that leave the input as it is."""
    if module.running_mean is not None and module.running_var is not None:
        module.running_mean.zero_()
        module.running_var.fill_(1 - module.eps)

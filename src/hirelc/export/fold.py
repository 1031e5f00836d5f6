"""A network made ready for export: BatchNorms folded into the kernels before them, scattered rows as concatenation.

What is computed does not change, nor does a code: a BatchNorm becomes a factor on the kernel's scales and a bias.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hirelc.compression.activations import ActivationSite, detach
from hirelc.compression.dataflow import record
from hirelc.compression.sites import spot_behind
from hirelc.network.calling import call
from hirelc.network.kernels import CONVOLUTIONS
from hirelc.network.surgery import ScatterConv1d, ScatterConv2d, ScatterConv3d, ScatterLinear, ScatterProjection

Rounding = Callable[[Tensor], Tensor]
_SCATTERED = (ScatterConv1d, ScatterConv2d, ScatterConv3d, ScatterLinear, ScatterProjection)


@dataclass(frozen=True)
class Folded:
    """A network ready for export.

    :param network: a copy without hooks
    :param factors: kernel -> what its BatchNorm multiplied each stored channel with
    :param weights: kernel -> its tensor in `network`
    :param behind: kernel -> index of the site behind its BatchNorm and ReLU, where there is one
    :param norms: kernel -> path of the BatchNorm that was folded into it; None where that module computes more
    :param rows: kernel -> the layer that computes only the rows that are kept
    """

    network: nn.Module
    factors: dict[str, NDArray[np.float64]]
    weights: dict[str, nn.Parameter]
    behind: dict[str, int]
    norms: dict[str, str | None]
    rows: dict[str, Rows]


class Rows(nn.Module):
    """A layer whose missing output channels are constants: computed channels, constants, then put in order."""

    constants: Tensor
    order: Tensor

    def __init__(self, inner: nn.Module, dim: int, bias: Tensor, kept: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.dim = dim  # of the channels, counted from the end
        stays = set(kept.tolist())
        missing = torch.tensor([i for i in range(len(bias)) if i not in stays], dtype=torch.int64)
        self.kept = kept.cpu()
        self.register_buffer("constants", bias[missing].reshape(-1, *[1] * (-dim - 1)).clone())
        self.register_buffer("order", torch.argsort(torch.cat([kept.cpu(), missing])))
        self.rounding: Rounding | None = None  # the site behind it: applied here too, the layer can be integer

    def __getattr__(self, name: str) -> Any:
        """What the network asks its layer for (a stride, a dtype of its weight) is the inner layer's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            inner = self.__dict__.get("_modules", {}).get("inner")
            if inner is None:
                raise
            return getattr(inner, name)

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.inner(inputs)
        if self.rounding is not None:
            found = self.rounding(found)
        axis = found.ndim + self.dim
        shape = list(found.shape)
        shape[axis] = self.constants.shape[0]
        return torch.cat([found, self.constants.expand(shape)], axis).index_select(axis, self.order)


class _Projection(nn.Module):
    """Hugging Face's Conv1D with fewer outputs: inputs (.., n) times weight (n, m)."""

    def __init__(self, weight: nn.Parameter, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = weight, nn.Parameter(bias)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.weight + self.bias


def fold(network: nn.Module, kernels: Sequence[str], sites: Sequence[ActivationSite], example: Any) -> Folded:
    """Folds a copy of the network.

    :param network: as `hirelc.load` gives it; not changed
    :param kernels: names of the weights
    """
    copied = copy.deepcopy(network).eval()
    detach(copied)
    flow = record(copied, lambda: call(copied, example))
    uses = Counter(id(p) for _, p in copied.named_parameters(remove_duplicate=False))
    numbers = {(site.module, site.side): i for i, site in enumerate(sites)}
    weights = {kernel: copied.get_parameter(kernel) for kernel in kernels}
    folded = Folded(copied, {}, weights, {}, {}, {})
    for kernel in kernels:
        path, _, attribute = kernel.rpartition(".")
        module = copied.get_submodule(path)
        layer = attribute == "weight" and isinstance(module, (*CONVOLUTIONS, nn.Linear))
        spot = spot_behind(flow, path) if layer else None
        if spot in numbers:
            folded.behind[kernel] = numbers[spot]  # type: ignore[index]
        norm = flow.batch_norm_behind(path) if layer and uses[id(weights[kernel])] == 1 else None
        if norm is not None:
            factor = _fold_norm(module, copied.get_submodule(norm))
            if factor is not None:
                folded.factors[kernel] = factor
                folded.norms[kernel] = norm if _is_plain(copied.get_submodule(norm)) else None
                _replace(copied, norm, _without_norm(copied.get_submodule(norm)))
        if isinstance(module, _SCATTERED):
            rows = folded.rows[kernel] = _rows(module)
            weights[kernel] = rows.inner.weight  # type: ignore[assignment]
            _replace(copied, path, rows)
    return folded


def _fold_norm(module: Any, norm: nn.Module) -> NDArray[np.float64] | None:
    """Moves a BatchNorm into the layer before it. Returns the factor of each stored channel; None when it cannot go."""
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None or norm.running_var is None:
        return None
    with torch.no_grad():
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        factor = scale if norm.weight is None else norm.weight.double() * scale
        shift = -norm.running_mean.double() * factor
        if norm.bias is not None:
            shift += norm.bias.double()
        if module.bias is not None:
            shift += module.bias.double() * factor
        module.bias = nn.Parameter(shift.float())
        if isinstance(module, _SCATTERED):
            factor = factor[module.kept]
        view = factor.reshape(-1, *[1] * (module.weight.ndim - 1))
        module.weight.copy_(module.weight.double() * view)
    return factor.numpy()


def _is_plain(norm: nn.Module) -> bool:
    return type(norm).forward is _BatchNorm.forward


def _without_norm(norm: nn.Module) -> nn.Module:
    """What is left of a folded BatchNorm: nothing, or whatever else its class computes (timm's have an activation inside)."""
    if _is_plain(norm):
        return nn.Identity()
    left: Any = norm
    left.running_mean, left.running_var = torch.zeros_like(left.running_mean), torch.ones_like(left.running_var)
    left.eps = 0.0
    if left.weight is not None:
        left.weight = nn.Parameter(torch.ones_like(left.weight))
    if left.bias is not None:
        left.bias = nn.Parameter(torch.zeros_like(left.bias))
    return norm


def _rows(module: Any) -> Rows:
    """The layer of a module that scatters its rows back."""
    kept = module.kept
    bias = getattr(module, "bias", None)
    bias = torch.zeros(module.full) if bias is None else bias.detach()
    dim = -1 - getattr(module, "spatial", 0)
    if isinstance(module, ScatterProjection):
        return Rows(_Projection(module.weight, bias[kept]), dim, bias, kept)  # type: ignore[arg-type]
    plain = next(base for base in type(module).__mro__ if base in (*CONVOLUTIONS, nn.Linear))
    inner = copy.copy(module)
    inner.__class__ = plain
    inner._parameters = {"weight": module.weight, "bias": nn.Parameter(bias[kept])}
    inner._buffers = {}
    return Rows(inner, dim, bias, kept)


def _replace(network: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)

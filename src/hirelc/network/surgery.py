"""Physical removal of channels: slices tensors, replaces modules whose rows are scattered back, mends attributes.

The same surgery serves the check of couplings, the fine-tuning and the reading of a file.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hirelc.network.attention import without_heads, without_nesting
from hirelc.network.kernels import CONVOLUTIONS, is_hf_conv1d
from hirelc.network.spec import Coupling, NetworkSpec


@dataclass(frozen=True)
class Kept:
    """What stays: units per coupling (by index), rows per row-pruned kernel (by name). Ascending; whole when absent."""

    units: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class _ScatterRows(nn.Module):
    """Mixin: computes only the kept output channels and scatters them back; the others carry the bias alone."""

    kept: Tensor
    full: int
    product: Callable[[Tensor], Tensor]  # each subclass names its operation

    def forward(self, inputs: Tensor) -> Tensor:
        kept = self.product(inputs)
        dim = self.channel_axis(kept)
        shape = list(kept.shape)
        shape[dim] = self.full
        out = kept.new_zeros(shape).index_copy(dim, self.kept, kept)
        bias = self._parameters.get("bias", getattr(self, "bias", None))
        if bias is None:
            return out
        view = [1] * out.ndim
        view[dim] = self.full
        return out + bias.to(out.dtype).view(view)

    def channel_axis(self, outputs: Tensor) -> int:
        return outputs.ndim - 1


class _ScatterConv(_ScatterRows):
    spatial: int

    def product(self, inputs: Tensor) -> Tensor:
        return self._conv_forward(inputs, self.weight, None)  # type: ignore[no-any-return,operator]

    def channel_axis(self, outputs: Tensor) -> int:
        return outputs.ndim - self.spatial - 1


class ScatterConv1d(_ScatterConv, nn.Conv1d):
    spatial = 1


class ScatterConv2d(_ScatterConv, nn.Conv2d):
    spatial = 2


class ScatterConv3d(_ScatterConv, nn.Conv3d):
    spatial = 3


class ScatterLinear(_ScatterRows, nn.Linear):
    def product(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, self.weight)


class ScatterProjection(_ScatterRows):
    """For Hugging Face's Conv1D, whose weight is stored (in, out)."""

    weight: Tensor

    def product(self, inputs: Tensor) -> Tensor:
        return inputs @ self.weight


_SCATTER: dict[type[nn.Module], type[_ScatterRows]] = {
    nn.Conv1d: ScatterConv1d,
    nn.Conv2d: ScatterConv2d,
    nn.Conv3d: ScatterConv3d,
    nn.Linear: ScatterLinear,
}


def slices_of(spec: NetworkSpec, kept: Kept) -> dict[str, list[tuple[int, np.ndarray]]]:
    """Tensor name -> (dimension, kept indices), for every tensor that loses something."""
    table: dict[str, list[tuple[int, np.ndarray]]] = {}
    for index, units in kept.units.items():
        for member in spec.couplings[index].members:
            table.setdefault(member.tensor, []).append((member.dim, member.indices(units)))
    for name, rows in kept.rows.items():
        table.setdefault(name, []).append((spec.by_name[name].channel_dim, np.asarray(rows, dtype=np.int64)))
    return table


def cut(tensor: Tensor, cuts: Sequence[tuple[int, np.ndarray]]) -> Tensor:
    """What is left of a tensor after its slices."""
    for dim, indices in cuts:
        tensor = tensor.index_select(dim, torch.from_numpy(indices).to(tensor.device))
    return tensor


def masked_state(network: nn.Module, spec: NetworkSpec, kept: Kept) -> dict[str, Tensor]:
    """The tensors that pruning touches, at full size, zero wherever `slim` would remove."""
    named = dict(network.named_parameters()) | dict(network.named_buffers())
    state: dict[str, Tensor] = {}
    for name, cuts in slices_of(spec, kept).items():
        tensor = named[name]
        for dim, indices in cuts:
            mask = torch.zeros(tensor.shape[dim], dtype=tensor.dtype, device=tensor.device)
            mask[torch.from_numpy(indices).to(tensor.device)] = 1
            view = [1] * tensor.ndim
            view[dim] = -1
            tensor = tensor * mask.view(view)
        state[name] = tensor.detach()
    return state


def slim(network: nn.Module, spec: NetworkSpec, kept: Kept, share: bool = False) -> nn.Module:
    """A copy of the network that stores and computes only what is kept.

    :param share: tensors that lose nothing are those of the network itself, for a look that changes none
    """
    tensors = (*network.parameters(), *network.buffers()) if share else ()
    smaller = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
    with torch.no_grad():
        for name, cuts in slices_of(spec, kept).items():
            path, _, attribute = name.rpartition(".")
            module = smaller.get_submodule(path)
            tensor = getattr(module, attribute)
            tensor = cut(tensor, cuts)
            if attribute in module._parameters:
                module._parameters[attribute] = nn.Parameter(
                    tensor.clone(), requires_grad=getattr(module, attribute).requires_grad
                )
            else:
                module._buffers[attribute] = tensor.clone()
    for name, rows in kept.rows.items():
        _scatter(smaller, name, rows, spec.by_name[name].channels)
    for name in slices_of(spec, kept):
        _refresh(smaller.get_submodule(name.rpartition(".")[0]))
    for index, units in kept.units.items():
        set_attributes(smaller, spec.couplings[index], len(units))
    without_nesting(smaller)
    return smaller


def set_attributes(network: nn.Module, coupling: Coupling, units: int) -> None:
    """Sets the attributes that count the coupling's units.

    :raises AttributeError: one of them is no integer of its module (a file may come from anyone)
    """
    for change in coupling.attributes:
        module = network.get_submodule(change.module)
        if type(vars(module).get(change.attribute)) is not int:
            raise AttributeError(f"{change.module} has no integer attribute {change.attribute!r}")
        setattr(module, change.attribute, units * change.per_unit)


def _scatter(network: nn.Module, name: str, rows: Sequence[int], full: int) -> None:
    module = network.get_submodule(name.rpartition(".")[0])
    module.__class__ = ScatterProjection if is_hf_conv1d(module) else _SCATTER[type(module)]
    module.register_buffer(
        "kept", torch.tensor(rows, dtype=torch.int64, device=next(module.parameters()).device), persistent=False
    )
    module.full = full  # type: ignore[assignment]


def _refresh(module: nn.Module) -> None:
    """Makes a module's own counts agree with its tensors; depthwise convolutions need theirs to run."""
    if isinstance(module, CONVOLUTIONS):
        depthwise = module.groups > 1 and module.weight.shape[1] == 1 and module.groups == module.in_channels
        module.out_channels = module.weight.shape[0]
        if depthwise:
            module.groups = module.in_channels = module.out_channels
        else:
            module.in_channels = module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        tensor = module.weight if module.weight is not None else module.running_mean
        module.num_features = 0 if tensor is None else tensor.shape[0]
    elif isinstance(module, nn.MultiheadAttention):
        without_heads(module)
    elif is_hf_conv1d(module) and not isinstance(module, _ScatterRows):
        module.nx, module.nf = module.weight.shape  # type: ignore[assignment,union-attr,misc]

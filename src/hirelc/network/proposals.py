"""Couplings that may hold, from what torch-pruning says about a kernel; each is checked before it counts."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from hirelc.network.graph import Group
from hirelc.network.heads import attribute_proposals, common_prefix, even_attributes, even_proposals, head_proposals
from hirelc.network.kernels import Candidate, kernel_parameters
from hirelc.network.spec import AttributeChange, Coupling, Member


def proposals(network: nn.Module, inputs: Any, group: Group, kernels: Mapping[str, Candidate]) -> Iterable[Coupling]:
    """Couplings to check, the likeliest first: channels, channels that flatten, fused parts, whole heads, heads evenly."""
    outputs = {name: kernels[name].shape[kernels[name].channel_dim] for name in group.producers}
    if group.grouped:
        yield from _groups(network, group)
        return
    if not group.attention:
        units = min(outputs.values())
        if len(set(outputs.values())) == 1 and (widened := _flattened(group, kernels, units)) is not None:
            single = Coupling(units, widened)
            yield single
            if group.loose:
                yield from _with_parameters(network, single, group)
        yield from _parts(group, kernels, outputs)
    for coupling in head_proposals(network, inputs, group.members, group.producers, group.consumers, kernels):
        for wider in (coupling, *(_with_parameters(network, coupling, group) if group.loose else ())):
            for attributes in attribute_proposals(network, wider, group.producers + group.consumers):
                yield replace(wider, attributes=attributes)
    yield from evenly(network, inputs, group, kernels)


def evenly(network: nn.Module, inputs: Any, group: Group, kernels: Mapping[str, Candidate]) -> Iterable[Coupling]:
    """Couplings by which every head of an attention loses the same channels."""
    for coupling in even_proposals(network, inputs, group.members, group.producers, group.consumers, kernels):
        for attributes in even_attributes(network, coupling, group.producers + group.consumers):
            yield replace(coupling, attributes=attributes)


def inside(group: Group, names: Container[str]) -> Group:
    """The part of a group that runs through these kernels.

    (Layers that share a bias of their attention are one group by their heads; the channels of a head are each layer's own.)
    """
    pairs = [
        (member, span)
        for member, span in zip(group.members, group.spans, strict=True)
        if f"{member.tensor.rpartition('.')[0]}.weight" in names
    ]
    return replace(
        group,
        members=tuple(member for member, _ in pairs),
        spans=tuple(span for _, span in pairs),
        producers=tuple(name for name in group.producers if name in names),
        consumers=tuple(name for name in group.consumers if name in names),
    )


def _flattened(group: Group, kernels: Mapping[str, Candidate], units: int) -> tuple[Member, ...] | None:
    """The members with their width: a Linear after a flatten reads H*W neighbours of each channel."""
    result = []
    for member in group.members:
        width = 1
        if not member.produces and member.tensor in kernels and len(group.consumers) == 1:
            length = kernels[member.tensor].shape[member.dim]
            if length % units:
                return None
            if member.starts == (0,):
                width = length // units
        result.append(replace(member, width=width))
    return tuple(result)


def _parts(group: Group, kernels: Mapping[str, Candidate], outputs: Mapping[str, int]) -> Iterable[Coupling]:
    """A projection that holds several parts of the dimension, as gated linear units do: one after the other, or in turns."""
    read = {kernels[name].shape[1 - kernels[name].channel_dim] for name in group.consumers}
    if len(read) != 1 or not any(member.starts == (0,) for member in group.members):
        return
    units = min(read)
    if units == max(outputs.values()) or any(span % units for span in group.spans):
        return
    parts = [span // units for span in group.spans]
    pairs = list(zip(group.members, parts, strict=True))
    yield Coupling(units, tuple(replace(m, starts=tuple(units * i for i in range(n))) for m, n in pairs))
    yield Coupling(units, tuple(replace(m, width=n) for m, n in pairs))


def _groups(network: nn.Module, group: Group) -> Iterable[Coupling]:
    """Whole groups of grouped convolutions, with all channels that they read and write."""
    convolutions = {path: network.get_submodule(path) for path in group.grouped}
    units = math.gcd(*(int(module.groups) for module in convolutions.values()))  # type: ignore[arg-type]
    if any(span % units for span in group.spans):
        return
    members = tuple(replace(m, width=span // units) for m, span in zip(group.members, group.spans, strict=True))
    attributes = tuple(
        AttributeChange(path, attribute, int(getattr(module, attribute)) // units)
        for path, module in convolutions.items()
        for attribute in ("groups", "in_channels")
    )
    yield Coupling(units, members, attributes)


def _with_parameters(network: nn.Module, coupling: Coupling, group: Group) -> Iterable[Coupling]:
    """The same coupling with the parameters near it that have one dimension of its units or channels.

    (Tables of relative positions have one column for each head.)
    """
    near = common_prefix([name.rpartition(".")[0] for name in group.producers + group.consumers])
    known = {member.tensor for member in coupling.members}
    widths = sorted({1, *(m.width for m in coupling.members)})
    extra = []
    for name, parameter in network.get_submodule(near).named_parameters(near):
        owner = network.get_submodule(name.rpartition(".")[0])
        fitting = [
            (dim, width) for width in widths for dim, size in enumerate(parameter.shape) if size == coupling.units * width
        ]
        if fitting and name not in known and not kernel_parameters(owner):
            dim, width = fitting[0]
            extra.append(Member(name, dim, (0,), width))
    if extra:
        yield replace(coupling, members=(*coupling.members, *extra))

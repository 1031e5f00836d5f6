"""Attention heads: found by disturbing one channel and watching which inputs of the output projection move.

Disturbing a query (or key) channel changes all channels of its head, disturbing a value channel changes one:
the largest change is the head. No attention module is known by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from hirelc.network.calling import steady_call
from hirelc.network.kernels import CONVOLUTIONS, Candidate
from hirelc.network.spec import AttributeChange, Coupling, Member


def head_proposals(
    network: nn.Module,
    inputs: Any,
    members: Sequence[Member],
    producers: Sequence[str],
    consumers: Sequence[str],
    kernels: Mapping[str, Candidate],
) -> Iterator[Coupling]:
    """Couplings whose units are whole heads. Needs one consumer (the output projection)."""
    found = _shape_of_heads(network, inputs, producers, consumers, kernels)
    if found is None or found.heads < 2:
        return
    heads, rows, width_in = found.heads, found.rows, found.heads * found.head
    for interleaved in (False, True):
        layout = []
        for member in members:
            count = rows.get(member.tensor, rows.get(_weight_of(member.tensor), width_in))
            parts = 1 if interleaved else max(1, count // width_in)
            starts = tuple(part * (count // parts) for part in range(parts))
            layout.append(Member(member.tensor, member.dim, starts, count // parts // heads, member.produces))
        yield Coupling(heads, tuple(layout))
        if all(count <= width_in for count in rows.values()):
            return  # nothing is fused: both layouts are one


def even_proposals(
    network: nn.Module,
    inputs: Any,
    members: Sequence[Member],
    producers: Sequence[str],
    consumers: Sequence[str],
    kernels: Mapping[str, Candidate],
) -> Iterator[Coupling]:
    """A coupling whose units are channels of all heads at once: every head keeps the same ones, and all heads stay.

    (For heads that cannot go: there is one, or a bias that all layers share has a column for each.)
    """
    found = _shape_of_heads(network, inputs, producers, consumers, kernels)
    if found is None:
        return
    layout = []
    for member in members:
        count = found.rows.get(member.tensor, found.rows.get(_weight_of(member.tensor), found.heads * found.head))
        layout.append(Member(member.tensor, member.dim, tuple(range(0, count, found.head)), 1, member.produces))
    yield Coupling(found.head, tuple(layout))


@dataclass(frozen=True)
class _Heads:
    """What disturbing channels shows.

    :param head: channels of a head
    :param heads: as many as the output projection reads
    :param rows: kernel -> output channels
    """

    head: int
    heads: int
    rows: Mapping[str, int]


def _shape_of_heads(
    network: nn.Module, inputs: Any, producers: Sequence[str], consumers: Sequence[str], kernels: Mapping[str, Candidate]
) -> _Heads | None:
    if len(consumers) != 1:
        return None
    reader = kernels[consumers[0]]
    width_in = reader.shape[1 - reader.channel_dim]
    rows = {name: kernels[name].shape[kernels[name].channel_dim] for name in producers}
    head = 0
    for name in producers:
        # a fused projection holds query, key and value one after the other
        for start in range(0, rows[name], width_in):
            head = max(head, _moved(network, inputs, kernels[name], start, reader))
    if head < 2 or width_in % head or any(count % head for count in rows.values()):
        return None
    heads = width_in // head
    return _Heads(head, heads, rows) if not any(count % heads for count in rows.values()) else None


def _weight_of(tensor: str) -> str:
    return tensor.rpartition(".")[0] + ".weight"


def _moved(network: nn.Module, inputs: Any, writer: Candidate, channel: int, reader: Candidate) -> int:
    """How many input channels of `reader` change when one output channel of `writer` is disturbed."""
    quiet = _input_of(network, inputs, writer, None, reader)
    loud = _input_of(network, inputs, writer, channel, reader)
    if quiet is None or loud is None or quiet.shape != loud.shape:
        return 0
    axis = channel_axis(network.get_submodule(reader.module), quiet)
    change = (quiet - loud).abs().transpose(axis, -1).flatten(0, -2).amax(0)
    return int((change > 1e-6 * float(quiet.abs().max() + 1e-12)).sum())


def _input_of(network: nn.Module, inputs: Any, writer: Candidate, channel: int | None, reader: Candidate) -> Tensor | None:
    caught: list[Tensor] = []

    def disturb(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if channel is None:
            return output
        generator = torch.Generator().manual_seed(0)
        output = output.clone()
        disturbed = output.select(channel_axis(network.get_submodule(writer.module), output), channel)
        disturbed += torch.randn(disturbed.shape, generator=generator).to(output) * (output.abs().amax() + 1)
        return output

    def catch(_module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            caught.append(args[0].detach())

    handles = [
        network.get_submodule(writer.module).register_forward_hook(disturb),
        network.get_submodule(reader.module).register_forward_pre_hook(catch),
    ]
    try:
        with torch.no_grad():
            steady_call(network, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return caught[0] if caught else None


def channel_axis(module: nn.Module, tensor: Tensor) -> int:
    """The dimension of a layer's input or output that holds its channels."""
    spatial = module.weight.ndim - 2 if isinstance(module, CONVOLUTIONS) else 0  # type: ignore[operator,union-attr]
    return tensor.ndim - 1 - spatial


def attribute_proposals(
    network: nn.Module, coupling: Coupling, kernels: Sequence[str]
) -> Iterator[tuple[AttributeChange, ...]]:
    """Sets of integer attributes that may count heads or their channels, the smallest set first."""
    widths = {m.width * coupling.units for m in coupling.members}
    heads: list[AttributeChange] = []
    channels: list[AttributeChange] = []
    grouped: list[AttributeChange] = []
    query_heads = _query_heads(coupling)
    for path, attribute, value in _integers_around(network, kernels):
        if value == coupling.units:
            heads.append(AttributeChange(path, attribute, 1))
        elif value in query_heads:
            grouped.append(AttributeChange(path, attribute, value // coupling.units))
        elif value in widths:
            channels.append(AttributeChange(path, attribute, value // coupling.units))
    seen = set()
    for use_grouped, use_channels in product((False, True), repeat=2):
        for names in _subsets({change.attribute for change in heads}):
            counting = [change for change in heads if change.attribute in names]
            chosen = tuple(counting + grouped * use_grouped + channels * use_channels)
            if chosen not in seen:
                seen.add(chosen)
                yield chosen


def even_attributes(network: nn.Module, coupling: Coupling, kernels: Sequence[str]) -> Iterator[tuple[AttributeChange, ...]]:
    """Sets of integer attributes that may count the channels of a head, or of all heads together."""
    totals = {len(m.starts) * coupling.units for m in coupling.members if len(m.starts) > 1}
    each: list[AttributeChange] = []
    together: list[AttributeChange] = []
    for path, attribute, value in _integers_around(network, kernels):
        if value == coupling.units:
            each.append(AttributeChange(path, attribute, 1))
        elif value in totals:
            together.append(AttributeChange(path, attribute, value // coupling.units))
    seen = set()
    for names, others in product(_subsets({c.attribute for c in each}), _subsets({c.attribute for c in together})):
        chosen = (*(c for c in each if c.attribute in names), *(c for c in together if c.attribute in others))
        if chosen not in seen:
            seen.add(chosen)
            yield chosen


def _integers_around(network: nn.Module, kernels: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    """(path, attribute, value) of the public integers of all modules that stand beside kernels or hold them together."""
    paths = [name.rpartition(".")[0] for name in kernels]
    common = common_prefix(paths)
    for path, module in network.named_modules():
        if path in paths or (common and path != common and not path.startswith(common + ".")):
            continue
        for attribute, value in vars(module).items():
            if type(value) is int and not attribute.startswith("_"):  # a bool is no count
                yield path, attribute, value


def _subsets(names: set[str]) -> list[tuple[str, ...]]:
    """None of them, each alone, all. (A window may be as wide as there are heads.)"""
    several = [tuple(sorted(names))] if len(names) > 1 else []
    return [(), *((name,) for name in sorted(names)), *several]


def _query_heads(coupling: Coupling) -> set[int]:
    """With grouped queries a unit is one key-value head and all its query heads: their number is a multiple of the units."""
    widths = sorted({m.width for m in coupling.members})
    return {coupling.units * wide // narrow for narrow in widths for wide in widths if wide > narrow and wide % narrow == 0}


def common_prefix(paths: Sequence[str]) -> str:
    """The path of the innermost module that holds all of these."""
    split = [path.split(".")[:-1] for path in paths]
    prefix = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        prefix.append(parts[0])
    return ".".join(prefix)

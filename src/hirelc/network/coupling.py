"""Which dimensions must shrink together: torch-pruning proposes, a forward pass of our own decides.

A proposal stands only if, with units removed at random, every module that reads the dimension computes the
same as the network whose units are zeroed. What fails the check is not coupled: its rows can still be pruned
by scattering them back (`Pruning.ROWS`).
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hirelc.network.calling import call, logits_of
from hirelc.network.heads import attribute_proposals, head_proposals
from hirelc.network.kernels import CONVOLUTIONS, Candidate, is_hf_conv1d
from hirelc.network.spec import Block, Coupling, Kernel, Member, NetworkSpec, Pruning
from hirelc.network.surgery import Kept, masked_state, slim

log = logging.getLogger("hirelc")
TOLERANCE = 1e-4  # of the largest output
MAX_STEPS = 100_000  # of a walk over torch-pruning's graph
# torch-pruning raises whatever its graph walk trips over
TRACE_ERRORS = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, NotImplementedError)


@dataclass(frozen=True)
class Found:
    """The couplings that hold, and notes for people about what could not be had."""

    couplings: tuple[Coupling, ...]
    notes: tuple[str, ...]


def find_couplings(
    network: nn.Module, inputs: Any, kernels: Sequence[Candidate], blocks: Sequence[Block], shared: frozenset[str]
) -> Found:
    """Couplings that stay inside one block, each checked by a forward pass.

    :param network: in eval mode, on the device of `inputs`; it is not changed
    :param shared: kernel names that must not be sliced (tied, or of modules called more than once)
    """
    owner = {name: i for i, block in enumerate(blocks) for name in block.kernels}
    try:
        graph = _Graph(network, inputs)
    except TRACE_ERRORS as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        return Found((), (f"torch-pruning cannot trace the network ({reason}): rows are pruned one kernel at a time",))
    checker = _Checker(network, inputs, kernels)
    couplings: list[Coupling] = []
    notes: list[str] = []
    taken: set[str] = set()
    for kernel in kernels:
        if kernel.name in taken or kernel.name not in owner or kernel.kind == "Embedding":
            continue
        block = owner[kernel.name]
        try:
            group = graph.group(kernel)
        except TRACE_ERRORS as error:
            notes.append(f"{kernel.name}: torch-pruning gives no group ({type(error).__name__})")
            continue
        if group is None or not group.consumers:
            continue
        names = {*group.producers, *group.consumers}
        if any(owner.get(name) != block or name in shared or name in taken for name in group.producers):
            continue
        if any(owner.get(name) != block or name in shared for name in names):
            continue
        held = next((c for c in _proposals(network, inputs, group, kernels) if checker.holds(c)), None)
        if held is None:
            notes.append(f"{kernel.name}: its coupled dimensions fail the check by a forward pass; rows are pruned instead")
            continue
        couplings.append(held)
        taken.update(held.producers)
    return Found(tuple(couplings), tuple(notes))


@dataclass(frozen=True)
class Group:
    """torch-pruning's answer for one kernel: members as it maps them, and which kernels write and read."""

    members: tuple[Member, ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    attention: bool


class _Graph:
    """torch-pruning's dependency graph of a copy of the network."""

    def __init__(self, network: nn.Module, inputs: Any) -> None:
        import torch_pruning

        clone = _traceable(network)
        for parameter in clone.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            self.graph = torch_pruning.DependencyGraph().build_dependency(
                clone, example_inputs=inputs, forward_fn=lambda model, data: logits_of(call(model, data))
            )
        self.originals = dict(network.named_modules())
        self.modules = dict(clone.named_modules())
        self.widest = max(max(p.shape, default=0) for p in clone.parameters())
        self.names = {module: name for name, module in self.modules.items()}

    def group(self, kernel: Candidate) -> Group | None:
        """The group that pruning all output channels of the kernel drags along; None when it is not all understood."""
        module = self.modules[kernel.module]
        pruner = self.graph.get_pruner_of_module(module)
        if pruner is None:
            return None
        members: list[Member] = []
        producers: list[str] = []
        consumers: list[str] = []
        attention = False
        for target, handler, indices in self._walk(module, pruner.prune_out_channels):
            if target.module not in self.names:
                kind = str(target.name).lower()
                attention |= any(word in kind for word in ("scaleddot", "softmax", "bmm", "baddbmm"))
                if "unwrappedparameter" in kind:
                    return None
                continue
            name = self.names[target.module]
            reads = handler == self._in(target.module)
            width = self.graph.get_in_channels(target.module) if reads else self.graph.get_out_channels(target.module)
            if width is not None:
                indices = sorted(i for i in indices if i < width)
            found = _members(name, self.originals[name], reads, indices)
            if found is None:
                return None
            members += found
            if type(target.module) in (*CONVOLUTIONS, nn.Linear):
                (consumers if not found[0].produces else producers).append(f"{name}.weight")
        return Group(tuple(dict.fromkeys(members)), tuple(dict.fromkeys(producers)), tuple(dict.fromkeys(consumers)), attention)

    def _walk(self, module: nn.Module, prune: Callable[..., Any]) -> Iterator[tuple[Any, Callable[..., Any], list[int]]]:
        """(node, pruning function, indices) of all that loses something with the module's output channels.

        torch-pruning's own walk goes round in circles over rotary embeddings; here only indices go on that are
        new and within the widest tensor.
        """
        from torch_pruning._helpers import _HybridIndex

        everything = [_HybridIndex(i, i) for i in range(self.graph.get_out_channels(module))]
        todo = [(self.graph.module2node[module], prune, everything)]
        seen: dict[tuple[Any, Callable[..., Any]], dict[int, None]] = {(todo[0][0], prune): {i.idx: None for i in everything}}
        for _ in range(MAX_STEPS):
            if not todo:
                return ((target, handler, list(indices)) for (target, handler), indices in seen.items())
            node, trigger, indices = todo.pop()
            for dependency in node.dependencies:
                if not dependency.is_triggered_by(trigger):
                    continue
                mapped = indices
                for mapping in dependency.index_mapping:
                    mapped = mapped if mapping is None else mapping(mapped)
                known = seen.setdefault((dependency.target, dependency.handler), {})
                fresh = [i for i in mapped if i.idx not in known and 0 <= i.idx < self.widest]
                known.update({i.idx: None for i in fresh})
                if fresh:
                    todo.append((dependency.target, dependency.handler, fresh))
        raise RuntimeError(f"the walk over the graph takes more than {MAX_STEPS} steps")

    def _in(self, module: nn.Module) -> Callable[..., Any] | None:
        pruner = self.graph.get_pruner_of_module(module)
        separate = pruner.prune_in_channels != pruner.prune_out_channels
        return pruner.prune_in_channels if separate else None


def _traceable(network: nn.Module) -> nn.Module:
    """A copy of the same structure without what torch-pruning stumbles over."""
    clone = copy.deepcopy(network).eval()
    config = getattr(clone, "config", None)
    if getattr(config, "use_cache", False):
        config.use_cache = False  # type: ignore[union-attr]  # keys and values joined to an empty cache
    for path, module in list(clone.named_modules()):
        if is_hf_conv1d(module):
            parent, _, child = path.rpartition(".")
            setattr(clone.get_submodule(parent), child, nn.Linear(module.weight.shape[0], module.weight.shape[1]))  # type: ignore[union-attr,arg-type]
    return clone


def _members(name: str, module: nn.Module, reads: bool, indices: Sequence[int]) -> list[Member] | None:
    """The tensors of a module that the group runs through; None for a type that cannot be sliced."""
    run = _as_run([int(i) for i in indices])
    if run is None:
        return None
    start, width = run, 1

    def member(attribute: str, dim: int, produces: bool = False) -> Member:
        return Member(f"{name}.{attribute}", dim, (start,), width, produces)

    if isinstance(module, CONVOLUTIONS):
        if module.groups == 1:
            if reads:
                return [member("weight", 1)]
        elif not (module.groups == module.in_channels == module.out_channels):
            return None
        biased = [member("bias", 0, True)] if module.bias is not None else []
        return [member("weight", 0, True), *biased]
    if type(module) is nn.Linear or is_hf_conv1d(module):
        out_dim = 1 if is_hf_conv1d(module) else 0
        if reads:
            return [member("weight", 1 - out_dim)]
        return [member("weight", out_dim, True), *([member("bias", 0, True)] if module.bias is not None else [])]
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        names = [n for n in ("weight", "bias", "running_mean", "running_var") if getattr(module, n) is not None]
        return [member(n, 0) for n in names]
    if isinstance(module, nn.PReLU):
        return [member("weight", 0)] if module.num_parameters > 1 else []
    if any(True for _ in module.parameters(recurse=False)):
        return None
    return []


def _as_run(indices: Sequence[int]) -> int | None:
    """The start of consecutive ascending indices; None when they are anything else."""
    start = indices[0] if indices else 0
    return start if list(indices) == list(range(start, start + len(indices))) else None


def _proposals(network: nn.Module, inputs: Any, group: Group, kernels: Sequence[Candidate]) -> Iterable[Coupling]:
    """Couplings to check, the likeliest first: single channels, then channels that flatten, then whole heads."""
    sizes = {k.name: k for k in kernels}
    outputs = {name: sizes[name].shape[sizes[name].channel_dim] for name in group.producers}
    units = min(outputs.values())
    if not group.attention and len(set(outputs.values())) == 1:
        widened = _flattened(group, sizes, units)
        if widened is not None:
            yield Coupling(units, widened)
    for coupling in head_proposals(network, inputs, group.members, group.producers, group.consumers, sizes):
        for attributes in attribute_proposals(network, coupling, group.producers + group.consumers):
            yield replace(coupling, attributes=attributes)


def _flattened(group: Group, sizes: dict[str, Candidate], units: int) -> tuple[Member, ...] | None:
    """The members with their width: a Linear after a flatten reads H*W neighbours of each channel."""
    result = []
    for member in group.members:
        width = 1
        if not member.produces and member.tensor in sizes and len(group.consumers) == 1:
            length = sizes[member.tensor].shape[member.dim]
            if length % units:
                return None
            if member.starts == (0,):
                width = length // units
        result.append(replace(member, width=width))
    return tuple(result)


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
    try:
        expected = _outputs(network, inputs, (), masked_state(network, spec, kept))
        actual = _outputs(slim(network, spec, kept), inputs, (), None)
    except TRACE_ERRORS as error:
        log.debug("rows of %s refused: %s", [k.name for k in kernels], error)
        return False
    return all(_close(expected[name], actual[name]) for name in expected)


class _Checker:
    """Compares the slim with the masked network at every module that reads the dimension, and at the end."""

    def __init__(self, network: nn.Module, inputs: Any, kernels: Sequence[Candidate]) -> None:
        self.network = network
        self.inputs = inputs
        self.kernels = {k.name: k for k in kernels}

    def holds(self, coupling: Coupling) -> bool:
        """Whether removing units equals zeroing them, for two random selections."""
        if coupling.units < 2 or not self._fits(coupling):
            return False
        spec = _spec_for_check(self.kernels.values(), coupling)
        generator = np.random.default_rng(0)
        readers = [m.tensor.rpartition(".")[0] for m in coupling.members if m.tensor in self.kernels and not m.produces]
        counts = sorted({1, coupling.units - 1, coupling.units // 2} - {0})
        for count in counts:
            units = tuple(sorted(int(u) for u in generator.choice(coupling.units, count, replace=False)))
            kept = Kept(units={0: units})
            try:
                expected = _outputs(self.network, self.inputs, readers, masked_state(self.network, spec, kept))
                actual = _outputs(slim(self.network, spec, kept), self.inputs, readers, None)
            except TRACE_ERRORS as error:
                log.debug("coupling of %s refused: %s", coupling.producers, error)
                return False
            if not all(_close(expected[name], actual[name]) for name in expected):
                return False
        return True

    def _fits(self, coupling: Coupling) -> bool:
        named = dict(self.network.named_parameters()) | dict(self.network.named_buffers())
        everything = range(coupling.units)
        return all(m.tensor in named and m.indices(everything).max() < named[m.tensor].shape[m.dim] for m in coupling.members)


def _close(expected: Tensor, actual: Tensor) -> bool:
    if expected.shape != actual.shape:
        return False
    scale = float(expected.abs().max()) + 1e-12
    return bool(torch.isfinite(actual).all()) and float((expected - actual).abs().max()) <= TOLERANCE * scale


def _outputs(network: nn.Module, inputs: Any, readers: Sequence[str], state: dict[str, Tensor] | None) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}

    def record(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            seen[name] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [network.get_submodule(name).register_forward_hook(record(name)) for name in readers]
    try:
        with torch.no_grad():
            seen["logits"] = logits_of(call(network, inputs, state))
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _spec_for_check(kernels: Iterable[Candidate], *couplings: Coupling) -> NetworkSpec:
    listed = tuple(
        Kernel(k.name, k.module, k.kind, k.shape, k.channel_dim, k.groups, k.macs, None, Pruning.COUPLED) for k in kernels
    )
    return NetworkSpec(listed, (), couplings, (), (), 1)

"""What torch-pruning says about the network: which tensors the output channels of a kernel run through."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hirelc.network.calling import logits_of, steady_call
from hirelc.network.kernels import CONVOLUTIONS, Candidate, is_hf_conv1d
from hirelc.network.spec import Member

MAX_STEPS = 100_000  # of a walk over torch-pruning's graph
# torch-pruning raises whatever its graph walk trips over, and so does a network whose channels do not fit any more
TRACE_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError)
Handler = Callable[..., Any]


@dataclass(frozen=True)
class Group:
    """torch-pruning's answer for one kernel.

    :param members: one for each dimension, as a single run of channels
    :param spans: how many channels each run has
    :param producers: kernels that write the dimension; `consumers` read it
    :param attention: a softmax or a product of two activations lies between
    :param loose: a parameter of the network itself takes part; torch-pruning does not say how
    :param grouped: paths of the grouped convolutions that the dimension runs through
    """

    members: tuple[Member, ...]
    spans: tuple[int, ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    attention: bool
    loose: bool
    grouped: tuple[str, ...]


class NoGroup(Exception):
    """The dimension runs through something that cannot be sliced; the message says what."""


class Graph:
    """torch-pruning's dependency graph of a copy of the network."""

    def __init__(self, network: nn.Module, inputs: Any) -> None:
        import torch_pruning

        clone = _traceable(network)
        for parameter in clone.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            self.graph = torch_pruning.DependencyGraph().build_dependency(
                clone, example_inputs=inputs, forward_fn=lambda model, data: logits_of(steady_call(model, data))
            )
        self.originals = dict(network.named_modules())
        self.modules = dict(clone.named_modules())
        self.widest = max(max(p.shape, default=0) for p in clone.parameters())
        self.names = {module: name for name, module in self.modules.items()}

    def group(self, kernel: Candidate) -> Group:
        """The group that pruning all output channels of the kernel drags along.

        :raises NoGroup: it is not all understood
        """
        module = self.modules[kernel.module]
        pruner = self.graph.get_pruner_of_module(module)
        if pruner is None:
            raise NoGroup(f"torch-pruning does not know a {kernel.kind}")
        spans: dict[Member, int] = {}
        producers: dict[str, None] = {}
        consumers: dict[str, None] = {}
        grouped: dict[str, None] = {}
        attention = loose = False
        obstacles: list[str] = []
        for target, handler, indices in self._walk(module, pruner.prune_out_channels):
            if target.module not in self.names:
                kind = str(target.name).lower()
                attention |= any(word in kind for word in ("scaleddot", "softmax", "bmm", "baddbmm"))
                loose |= "unwrappedparameter" in kind
                continue
            name, original = self.names[target.module], self.originals[self.names[target.module]]
            reads = handler == self._in(target.module)
            width = self.graph.get_in_channels(target.module) if reads else self.graph.get_out_channels(target.module)
            if width is not None:
                indices = sorted(i for i in indices if i < width)
            found, obstacle = _members(name, original, reads, indices)
            if obstacle:
                obstacles.append(obstacle)
            spans |= dict.fromkeys(found, len(indices))
            if is_grouped(original):
                grouped[name] = None
            if found and type(target.module) in (*CONVOLUTIONS, nn.Linear):
                (producers if found[0].produces else consumers)[f"{name}.weight"] = None
        return Group(tuple(spans), tuple(spans.values()), tuple(producers), tuple(consumers), attention, loose, tuple(grouped))

    def _walk(self, module: nn.Module, prune: Handler) -> Iterator[tuple[Any, Handler, list[int]]]:
        """(node, pruning function, indices) of all that loses something with the module's output channels.

        torch-pruning's own walk goes round in circles over rotary embeddings; here only indices go on that are
        new and within the widest tensor.
        """
        todo: list[tuple[Any, Handler, list[Any]]] = []
        seen: dict[tuple[Any, Handler], dict[int, None]] = {}

        def go_on(node: Any, handler: Handler, indices: Sequence[Any]) -> None:
            known = seen.setdefault((node, handler), {})
            fresh = [i for i in indices if i.idx not in known and 0 <= i.idx < self.widest]
            known.update({i.idx: None for i in fresh})
            if fresh:
                todo.append((node, handler, fresh))

        def whole(node: Any, handler: Handler, count: int) -> None:
            from torch_pruning._helpers import _HybridIndex

            go_on(node, handler, [_HybridIndex(i, i) for i in range(count)])

        whole(self.graph.module2node[module], prune, self.graph.get_out_channels(module))
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
                go_on(dependency.target, dependency.handler, mapped)
            if is_grouped(node.module):  # a group of filters goes with the channels that it reads: both sides lose it
                pruner = self.graph.get_pruner_of_module(node.module)
                whole(node, pruner.prune_out_channels, node.module.out_channels)
                whole(node, pruner.prune_in_channels, node.module.in_channels)
        raise RuntimeError(f"the walk over the graph takes more than {MAX_STEPS} steps")

    def _in(self, module: nn.Module) -> Handler | None:
        pruner = self.graph.get_pruner_of_module(module)
        separate = pruner.prune_in_channels != pruner.prune_out_channels
        return pruner.prune_in_channels if separate else None


def is_grouped(module: nn.Module) -> bool:
    """A convolution in groups that is not depthwise with as many channels out as in."""
    if not isinstance(module, CONVOLUTIONS) or module.groups == 1:
        return False
    return not module.groups == module.in_channels == module.out_channels


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


def _members(name: str, module: nn.Module, reads: bool, indices: Sequence[int]) -> tuple[list[Member], str]:
    """The tensors of a module that the group runs through, and why single channels cannot go, or nothing."""
    start = _as_run([int(i) for i in indices])
    obstacle = "" if start is not None else f"the channels arrive at {name} in another order"

    def member(attribute: str, dim: int, produces: bool = False) -> Member:
        return Member(f"{name}.{attribute}", dim, (start or 0,), 1, produces)

    def written(dim: int) -> list[Member]:
        return [member("weight", dim, True), *([member("bias", 0, True)] if module.bias is not None else [])]

    if isinstance(module, CONVOLUTIONS):
        if not reads:
            return written(0), obstacle
        # of grouped convolutions the groups go that the writing side loses
        return ([member("weight", 1)] if module.groups == 1 else []), obstacle
    if type(module) is nn.Linear or is_hf_conv1d(module):
        out_dim = 1 if is_hf_conv1d(module) else 0
        return ([member("weight", 1 - out_dim)] if reads else written(out_dim)), obstacle
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        names = [n for n in ("weight", "bias", "running_mean", "running_var") if getattr(module, n) is not None]
        return [member(n, 0) for n in names], obstacle
    if isinstance(module, nn.PReLU):
        return ([member("weight", 0)] if module.num_parameters > 1 else []), obstacle
    if any(True for _ in module.parameters(recurse=False)):
        return [], f"the dimension runs through {name}, a {type(module).__name__}, which needs all of its channels"
    return [], ""


def _as_run(indices: Sequence[int]) -> int | None:
    """The start of consecutive ascending indices; None when they are anything else."""
    start = indices[0] if indices else 0
    return start if list(indices) == list(range(start, start + len(indices))) else None

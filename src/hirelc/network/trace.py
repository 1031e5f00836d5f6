"""From any module and an example input to a NetworkSpec."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from hirelc.errors import NetworkError
from hirelc.network.blocks import find_blocks
from hirelc.network.calling import head, logits_of, steady_call, to_device
from hirelc.network.checking import rows_that_fail
from hirelc.network.coupling import Found, find_couplings
from hirelc.network.kernels import Candidate, find_kernels, tied_names, watch
from hirelc.network.norms import fold_batchnorms
from hirelc.network.spec import Block, Kernel, NetworkSpec, Pruning, TensorEntry

HALF_MAX, HALF_TINY = 32_768.0, 6e-5  # outside this range fp16 loses digits
TRACE_SAMPLES = 2


def trace(network: nn.Module, inputs: Any, blocks: str | None = None) -> NetworkSpec:
    """Describes a network: kernels, blocks, frame, coupled dimensions, and what is left as it is.

    >>> spec = hirelc.trace(net, torch.zeros(2, 8))
    >>> [block.name for block in spec.blocks], [kernel.name for kernel in spec.frame]
    (['1', '2'], ['0.weight', '3.weight'])

    :param inputs: an example batch (tensor, tuple or dict); two samples are used
    :param blocks: regular expression naming the blocks; None finds them by repetition
    :raises NetworkError: the network fails on the input, or holds nothing to compress
    """
    check_module(network)
    network = float_copy(network)
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    example = to_device(head(inputs, TRACE_SAMPLES), device)
    seen = watch(network, example)
    kernels, untouched = find_kernels(network, seen)
    if not [k for k in kernels if k.kind != "Embedding"]:
        raise NetworkError(
            "nothing to compress: the network has no convolution, linear layer or attention in-projection "
            "(`hirelc inspect` lists its parameters)"
        )
    found = find_blocks(network, kernels, blocks)
    tied = tied_names(network)
    shared = frozenset(k.name for k in kernels if k.name in tied)
    couplings = find_couplings(network, example, kernels, found, shared)
    listed = [_kernel(k, found, couplings, tied) for k in kernels]
    by_rows = {k.name for k in listed if k.pruning is Pruning.ROWS}
    failing = rows_that_fail(network, example, [k for k in kernels if k.name in by_rows])
    reason = "its weight is read by other code than its own module: no row can be left out"
    return NetworkSpec(
        kernels=tuple(replace(k, pruning=Pruning.NONE, reason=reason) if k.name in failing else k for k in listed),
        blocks=tuple(found),
        couplings=couplings.couplings,
        rest=tuple(_rest(network, {k.name for k in kernels})),
        untouched=tuple(untouched),
        original_bytes=original_bytes(network),
        parameters=sum(p.numel() for p in network.parameters()),
        notes=(*couplings.notes, *_chance(network, example)),
    )


@torch.no_grad()
def _chance(network: nn.Module, example: Any) -> tuple[str, ...]:
    """A word about a network whose answer is a matter of chance."""
    first, second = (logits_of(steady_call(network, example, seed=seed)) for seed in (0, 1))
    if first.shape == second.shape and torch.allclose(first.float(), second.float(), equal_nan=True):
        return ()
    return ("the network draws random numbers in eval mode too: all comparisons and measurements are made with the same ones",)


def check_module(network: object) -> None:
    """:raises NetworkError: not an nn.Module"""
    if not isinstance(network, nn.Module):
        raise NetworkError(f"expected a torch.nn.Module, got {type(network).__name__}: the factory must return the network")


def float_copy(network: nn.Module) -> nn.Module:
    """A float32 copy in eval mode.

    :raises NetworkError: it cannot be copied
    """
    try:
        return copy.deepcopy(unwrapped(network)).float().eval()
    except (RuntimeError, TypeError) as error:
        raise NetworkError(
            f"the network cannot be copied: {error} (old-style weight_norm? use torch.nn.utils.parametrizations)"
        ) from error


def unwrapped(network: nn.Module) -> nn.Module:
    """The network without torch.compile's wrappers: itself where there are none, else a copy."""
    inner = {id(m): m._orig_mod for m in network.modules() if isinstance(getattr(m, "_orig_mod", None), nn.Module)}
    copies: dict[int, object] = {}
    for wrapper, module in reversed(inner.items()):  # the innermost first
        copies[wrapper] = copy.deepcopy(module, copies)
    return copy.deepcopy(network, copies) if copies else network


def unique_state(network: nn.Module) -> dict[str, Tensor]:
    """The state dict with tied tensors once, under their first name."""
    seen: set[tuple[int, tuple[int, ...]]] = set()
    state = {}
    for name, tensor in network.state_dict().items():
        if not isinstance(tensor, Tensor):
            raise NetworkError(f"{name}: a state of type {type(tensor).__name__} cannot be stored; only tensors can")
        key = (tensor.data_ptr(), tuple(tensor.shape))
        if tensor.numel() and key in seen:
            continue
        seen.add(key)
        state[name] = tensor
    return state


def original_bytes(network: nn.Module) -> int:
    """Length of the fp32 safetensors file of the network, header included."""
    state = {n: (t.float() if t.is_floating_point() else t).contiguous().cpu() for n, t in unique_state(network).items()}
    return len(safetensors.torch.save(state))


def _kernel(k: Candidate, blocks: list[Block], couplings: Found, tied: set[str]) -> Kernel:
    block = next((i for i, b in enumerate(blocks) if k.name in b.kernels), None)
    pruning, reason = Pruning.NONE, ""
    if block is None:
        reason = "belongs to the frame"
    elif any(k.name in c.producers for c in couplings.couplings):
        pruning = Pruning.COUPLED
    elif k.name in tied:
        reason = "its weight is shared with another module"
    elif not k.rows:
        reason = f"{k.kind} uses its weight in a way that cannot leave rows out"
    elif k.shape[k.channel_dim] // k.groups < 2:
        reason = "one channel per group"
    else:
        pruning, reason = Pruning.ROWS, couplings.refused.get(k.name, "")
    return Kernel(k.name, k.module, k.kind, k.shape, k.channel_dim, k.groups, k.macs, block, pruning, reason)


def _rest(network: nn.Module, kernels: set[str]) -> list[TensorEntry]:
    folded = copy.deepcopy(network)
    dropped = fold_batchnorms(folded)
    parameters = {name for name, _ in folded.named_parameters(remove_duplicate=False)}
    entries = []
    for name, tensor in unique_state(folded).items():
        if name in kernels or name in dropped:
            continue
        entries.append(TensorEntry(name, tuple(tensor.shape), _kind(name, tensor, name in parameters)))
    return entries


def _kind(name: str, tensor: Tensor, parameter: bool) -> str:
    """Parameters are coded: they were trained among noise. Buffers may be tables that must be exact."""
    if not tensor.is_floating_point():
        if tensor.is_complex():
            raise NetworkError(f"{name}: complex tensors cannot be stored yet")
        return "int64"
    if tensor.numel() == 0:
        return "float16"
    return "coded" if parameter and bool(torch.isfinite(tensor).all()) else float_kind(name, tensor)


def float_kind(name: str, tensor: Tensor) -> str:
    """The shorter type that keeps a tensor's digits."""
    size = tensor.detach().abs().float()
    if not bool(torch.isfinite(size).all()):
        return "float32"
    if name.endswith("running_var") or float(size.max()) > HALF_MAX or 0 < float(size.max()) < HALF_TINY:
        return "float32"
    return "float16"

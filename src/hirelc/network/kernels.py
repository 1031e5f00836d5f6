"""Which tensors are kernels: found by the type of their module and by watching one forward pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hirelc.errors import NetworkError
from hirelc.network.calling import first_tensor, steady_call, where_it_failed
from hirelc.network.spec import Untouched

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
ROW_PRUNABLE = (*CONVOLUTIONS, nn.Linear)
MIN_TENSOR = 2  # dimensions below which a parameter is a norm or a bias and not worth a word


def is_hf_conv1d(module: nn.Module) -> bool:
    """Hugging Face's Conv1D: a Linear whose weight is stored (in, out)."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf") and hasattr(module, "weight")


@dataclass(frozen=True)
class Candidate:
    """A kernel before blocks and couplings are known."""

    name: str
    module: str
    kind: str
    shape: tuple[int, ...]
    channel_dim: int
    groups: int
    macs: int
    calls: int
    rows: bool  # its module is called, exactly of a known type, so rows can be left out and scattered back


@dataclass
class Watch:
    """What one forward pass shows: calls and output positions of each module."""

    calls: dict[str, int] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)


def watch(network: nn.Module, inputs: Any) -> Watch:
    """Runs the network once in eval mode and counts, per module, calls and outputs per channel and sample."""
    seen = Watch()
    batch = max(1, first_tensor(inputs).shape[0])
    channels = {}
    for name, module in network.named_modules():
        found = kernel_parameters(module)
        if found:
            channels[name] = found[0].channels

    def hook(name: str) -> Any:
        def record(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            seen.calls[name] = seen.calls.get(name, 0) + 1
            if isinstance(tensor, Tensor):
                seen.positions[name] = seen.positions.get(name, 0) + tensor.numel() // (batch * max(1, channels[name]))

        return record

    handles = [network.get_submodule(name).register_forward_hook(hook(name)) for name in channels]
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            steady_call(network, inputs)
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        place = where_it_failed(network, error)
        raise NetworkError(f"the network fails on the example input{place}: {type(error).__name__}: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
        network.train(training)
    return seen


@dataclass(frozen=True)
class _Found:
    attribute: str
    channel_dim: int
    channels: int
    groups: int = 1


def kernel_parameters(module: nn.Module) -> list[_Found]:
    """The attributes of a module that are kernels, or nothing when the type is not one of ours."""
    if isinstance(module, CONVOLUTIONS):
        return [_Found("weight", 0, module.out_channels, module.groups)]
    if isinstance(module, TRANSPOSED):
        return [_Found("weight", 1, module.out_channels, module.groups)]
    if isinstance(module, nn.Linear):
        return [_Found("weight", 0, module.out_features)]
    if isinstance(module, nn.Embedding):
        return [_Found("weight", 0, module.embedding_dim)]
    if is_hf_conv1d(module):
        return [_Found("weight", 1, int(module.nf))]  # type: ignore[arg-type]
    if isinstance(module, nn.MultiheadAttention):
        names = ["in_proj_weight"] if module.in_proj_weight is not None else ["q_proj_weight", "k_proj_weight", "v_proj_weight"]
        return [_Found(name, 0, module.embed_dim) for name in names]
    return []


def find_kernels(network: nn.Module, seen: Watch) -> tuple[list[Candidate], list[Untouched]]:
    """Every kernel once, in the network's order, and every other tensor of two or more dimensions with the reason."""
    found: list[Candidate] = []
    untouched: list[Untouched] = []
    owner: dict[int, str] = {}
    claimed: set[str] = set()
    for path, module in network.named_modules():
        for item in kernel_parameters(module):
            name = f"{path}.{item.attribute}" if path else item.attribute
            parameter = module._parameters.get(item.attribute)
            if parameter is None:
                reason = "its weight is computed by a parametrization: remove that first (parametrize.remove_parametrizations)"
                weight = getattr(module, item.attribute, None)
                untouched.append(Untouched(name, tuple(weight.shape) if isinstance(weight, Tensor) else (), reason))
                claimed.update(f"{path}.{n}" for n, _ in module.named_parameters())
                continue
            if id(parameter) in owner:
                reason = f"is the same tensor as the kernel {owner[id(parameter)]}, and stored once"
                untouched.append(Untouched(name, tuple(parameter.shape), reason))
                continue
            if not parameter.is_floating_point():
                continue
            owner[id(parameter)] = name
            claimed.add(name)
            calls = seen.calls.get(path, 0)
            found.append(
                Candidate(
                    name=name,
                    module=path,
                    kind=type(module).__name__,
                    shape=tuple(parameter.shape),
                    channel_dim=item.channel_dim,
                    groups=item.groups,
                    macs=0 if isinstance(module, nn.Embedding) else parameter.numel() * seen.positions.get(path, 0),
                    calls=calls,
                    rows=calls > 0 and (type(module) in ROW_PRUNABLE or is_hf_conv1d(module)),
                )
            )
    for name, parameter in network.named_parameters():
        if name not in claimed and id(parameter) not in owner and parameter.ndim >= MIN_TENSOR and max(parameter.shape) > 1:
            parent = type(network.get_submodule(name.rpartition(".")[0])).__name__
            reason = f"a parameter of {parent}, which is no convolution, linear layer, attention in-projection or embedding"
            untouched.append(Untouched(name, tuple(parameter.shape), reason))
    return found, untouched


def tied_names(network: nn.Module) -> set[str]:
    """Names of parameters that are one tensor under several names."""
    names: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name for group in names.values() if len(group) > 1 for name in group}

"""Activations in eight bits: where they are quantized, with which range, in training and in the network read back.

A *site* is a place where a hook can replace a tensor: the first floating-point argument of a module, or its result.
Every value there is rounded to `(code - zero_point) * scale` with code 0 .. 255. The same sites stand in the exported
graph as QuantizeLinear and DequantizeLinear.

    found = observe(network, [k.name for k in spec.kernels], batches)   # where, and the ranges
    handles = attach(network, found.sites)                              # fixed, as in the network read back
    quantizers = SiteQuantizers(network, found.sites)                   # trained: ranges move with the weights
    quantizers.sites()                                                  # what the file stores
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hirelc.compression.calibration import Samples, search_range
from hirelc.compression.dataflow import first_float, first_output
from hirelc.compression.sites import Place, Side, find_places
from hirelc.errors import FormatError
from hirelc.network.calling import call

LEVELS = 255


@dataclass(frozen=True)
class ActivationSite:
    """One quantized tensor.

    :param module: path of a module; "" is the network itself
    :param side: "input", its first floating-point argument, or "output", its result (the first of a tuple)
    :param scale: positive, a number that float32 holds exactly
    :param zero_point: the code that means zero, 0 .. 255
    """

    module: str
    side: Side
    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        if self.side not in ("input", "output"):
            raise FormatError(f"activation site {self.module!r}: side must be input or output, not {self.side!r}")
        if not (self.scale > 0 and math.isfinite(self.scale) and _float32(self.scale) == self.scale):
            raise FormatError(f"activation site {self.module!r}: its scale {self.scale!r} is no positive float32 number")
        if not 0 <= self.zero_point <= LEVELS:
            raise FormatError(f"activation site {self.module!r}: its zero point {self.zero_point} is not within 0 and 255")


@dataclass(frozen=True)
class Observed:
    """What a calibration found.

    :param left: kernels whose activations stay float -> the reason
    """

    sites: tuple[ActivationSite, ...]
    left: dict[str, str]


def observe(
    network: nn.Module, kernels: Iterable[str], batches: Sequence[Any], run: Callable[[Any], Any] | None = None
) -> Observed:
    """Finds the sites of a network and the range of least squared error of each.

    :param kernels: names of the weights, as `NetworkSpec.kernels[i].name`
    :param batches: inputs (no targets); a few hundred samples are enough
    :param run: runs the network on one batch; a CompressedNetwork for its quantized weights. Default: the network
    """
    run = run or (lambda inputs: call(network, inputs))
    places, left = find_places(network, tuple(kernels), lambda: run(batches[0]))
    samples = [Samples() for _ in range(1 + max((place.group for place in places), default=-1))]
    handles = [_watch(network, place, samples[place.group]) for place in places]
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            for inputs in batches:
                run(inputs)
    finally:
        for handle in handles:
            handle.remove()
        network.train(training)
    ranges = [search_range(values) for values in samples]
    sites = tuple(ActivationSite(p.module, p.side, *ranges[p.group]) for p in places)
    return Observed(sites, left)


def attach(network: nn.Module, sites: Iterable[ActivationSite]) -> list[RemovableHandle]:
    """Quantizes the network's activations from now on, with fixed ranges. Gradients pass straight through.

    :raises FormatError: a site's module does not exist in the network
    """
    return [hook(network, site.module, site.side, _Fixed(site)) for site in sites]


def detach(network: nn.Module) -> tuple[ActivationSite, ...]:
    """Undoes `attach`; the sites that were attached."""
    found = []
    for module in network.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key, hook in list(hooks.items()):
                if isinstance(hook, _OnInput | _OnOutput) and isinstance(hook.quantize, _Fixed):
                    found.append(hook.quantize.site)
                    del hooks[key]
                    module._forward_pre_hooks_with_kwargs.pop(key, None)
    return tuple(found)


def attached(network: nn.Module) -> tuple[ActivationSite, ...]:
    """The sites of a network that `attach` was called on, module by module."""
    hooks = [h for m in network.modules() for h in (*m._forward_pre_hooks.values(), *m._forward_hooks.values())]
    found = [h.quantize for h in hooks if isinstance(h, _OnInput | _OnOutput)]
    return tuple(quantizer.site for quantizer in found if isinstance(quantizer, _Fixed))


class _Fixed:
    """A site in the network read back. No module: it leaves the state dict as it is, and is copied with the network."""

    def __init__(self, site: ActivationSite) -> None:
        self.site = site

    def __call__(self, values: Tensor) -> Tensor:
        found = torch.fake_quantize_per_tensor_affine(values.float(), self.site.scale, self.site.zero_point, 0, LEVELS)
        return found.to(values.dtype)


class SiteQuantizer(nn.Module):
    """A site in training: the scale learns (LSQ), the zero point stays. Relative moves: it is trained as a logarithm."""

    def __init__(self, site: ActivationSite) -> None:
        super().__init__()
        self.module, self.side, self.zero_point = site.module, site.side, site.zero_point
        self.log_scale = nn.Parameter(torch.tensor(math.log(site.scale), dtype=torch.float64))

    @property
    def scale(self) -> Tensor:
        """A float32 scalar, exactly as it is stored."""
        return self.log_scale.exp().float()

    def site(self) -> ActivationSite:
        return ActivationSite(self.module, self.side, self.scale.item(), self.zero_point)  # type: ignore[arg-type]

    def forward(self, values: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return _Fixed(self.site())(values)
        found: Tensor = _LearnedRound.apply(values.float(), self.scale, self.zero_point)  # type: ignore[no-untyped-call]
        return found.to(values.dtype)


class SiteQuantizers(nn.ModuleList):
    """All sites of a network in training; hooks are in place as long as the network lives, copies included."""

    def __init__(self, network: nn.Module, sites: Iterable[ActivationSite]) -> None:
        super().__init__(SiteQuantizer(site) for site in sites)
        for quantizer in self:
            hook(network, quantizer.module, quantizer.side, quantizer)  # type: ignore[arg-type]

    def sites(self) -> tuple[ActivationSite, ...]:
        """The sites with the ranges learned so far."""
        return tuple(quantizer.site() for quantizer in self)  # type: ignore[operator,misc]


class _LearnedRound(torch.autograd.Function):
    """values, scale -> nearest level x scale; the gradient of the scale as Esser et al. (ICLR 2020) derive it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor, zero_point: int) -> Tensor:
        units = values * (1.0 / scale)
        levels = units.round().clamp_(-zero_point, LEVELS - zero_point)
        error = levels - units
        ctx.save_for_backward(error, levels)
        return levels * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        error, levels = ctx.saved_tensors
        inside = error.abs() <= 0.5
        slope = torch.where(inside, error, levels)
        return gradient * inside, (gradient * slope).sum(), None


class _OnInput:
    def __init__(self, quantize: Callable[[Tensor], Tensor]) -> None:
        self.quantize = quantize

    def __call__(self, _module: nn.Module, args: Any, kwargs: Any) -> Any:
        first = first_float((args, kwargs))
        if first is None:
            return None
        new = self.quantize(first)
        # wherever the same tensor is given twice (query, key, value) it stays the same one
        swapped = tuple(new if a is first else a for a in args)
        return swapped, {name: new if a is first else a for name, a in kwargs.items()}


class _OnOutput:
    def __init__(self, quantize: Callable[[Tensor], Tensor]) -> None:
        self.quantize = quantize

    def __call__(self, _module: nn.Module, _args: Any, output: Any) -> Any:
        result = first_output(output)
        if result is None:
            return None
        new = self.quantize(result)
        return new if isinstance(output, Tensor) else type(output)([new, *output[1:]])


def hook(
    network: nn.Module, path: str, side: Side, quantize: Callable[[Tensor], Tensor], first: bool = False
) -> RemovableHandle:
    """Passes the tensor at a site through a function.

    :param first: before all functions that are there already
    :raises FormatError: there is no such module
    """
    try:
        module = network.get_submodule(path)
    except AttributeError:
        raise FormatError(f"activation site {path!r}: the network has no such module") from None
    if side == "input":
        return module.register_forward_pre_hook(_OnInput(quantize), with_kwargs=True, prepend=first)
    return module.register_forward_hook(_OnOutput(quantize), prepend=first)


def _watch(network: nn.Module, place: Place, samples: Samples) -> RemovableHandle:
    def look(values: Tensor) -> Tensor:
        samples.add(values.clamp(place.low, place.high))
        return values

    return hook(network, place.module, place.side, look)


def _float32(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])

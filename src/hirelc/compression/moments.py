"""What kernels read, and what the original gives there: second moments over calibration samples, gathered by hooks.

A layer is a kernel whose module computes `rows @ input` at each of many positions: a linear layer per token, a
convolution per place of its result, in each of its groups. Only a part of the positions is looked at, drawn anew for
each batch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hirelc.compression.apply import CompressedNetwork
from hirelc.compression.dataflow import Flow, first_float, first_output, record
from hirelc.compression.quantize import as_rows
from hirelc.network.calling import steady_call
from hirelc.network.kernels import CONVOLUTIONS, is_hf_conv1d
from hirelc.network.spec import Kernel
from hirelc.network.surgery import slices_of

Positions = tuple[Tensor, ...]

POSITIONS = 8192  # that are looked at in each batch and layer
VALUES = 32_000_000  # of one result that are looked at: a language model's head is wide
CLOSE = 1e-3  # of the largest value
COMPARED = 64  # positions by which a module is seen to be a product of weight and input
NO_PRODUCT = "its module does more than multiply its weight with what it reads"
DIFFERS = "it is not called on the same positions in the original and the compressed network"


@dataclass(frozen=True)
class Layer:
    """A kernel that can be reconstructed.

    :param kept: which of the original's output channels are left, ascending, in each group alike many; None for all
    :param norm: path of the BatchNorm that alone reads the result
    :param calls: of its module in one forward pass
    """

    kernel: Kernel
    kept: Tensor | None
    norm: str | None
    calls: int

    @property
    def name(self) -> str:
        return self.kernel.name

    @property
    def path(self) -> str:
        return self.kernel.module


def find_layers(compressed: CompressedNetwork, inputs: Any) -> tuple[tuple[Layer, ...], dict[str, str]]:
    """The layers in order of their first call, and the kernels that are none with the reason.

    :param inputs: a few samples
    """
    spec, network = compressed.spec, compressed.network
    flow = record(network, lambda: steady_call(network, inputs))
    owners = Counter(id(tensor) for module in network.modules() for tensor in module._parameters.values())
    cuts = slices_of(spec, compressed.kept)
    layers, left = {}, {}
    for kernel in spec.kernels:
        reason = _reason(network, kernel, flow, owners)
        if reason:
            left[kernel.name] = reason
            continue
        calls = len(flow.calls(kernel.module))
        rows = [torch.from_numpy(indices) for dim, indices in cuts.get(kernel.name, []) if dim == kernel.channel_dim]
        layers[kernel.module] = Layer(kernel, rows[0] if rows else None, flow.batch_norm_behind(kernel.module), calls)
    order = dict.fromkeys(operation.module for operation in flow.operations if operation.module in layers)
    return tuple(layers[path] for path in order if path is not None), left


def _reason(network: nn.Module, kernel: Kernel, flow: Flow, owners: Counter[int]) -> str:
    module = network.get_submodule(kernel.module)
    if not (isinstance(module, (*CONVOLUTIONS, nn.Linear)) or is_hf_conv1d(module)):
        return f"a kernel of {type(module).__name__} is rounded by itself"
    if owners[id(module.weight)] > 1:
        return "the same tensor serves other modules too"
    if not flow.calls(kernel.module):
        return "its module is not called: the network uses the weight by itself"
    return ""


@dataclass
class Moments:
    """Sums over positions, float64; g groups, m output channels and n inputs in each.

    :ivar inputs: (g, n, n), of x x^T with x what the compressed network's layer reads
    :ivar cross: (g, m, n), of y x^T with y what the original gives there, kept channels only
    :ivar input_sum: (g, n)
    :ivar output_sum: (channels of the original,)
    :ivar failed: why there is nothing to be learned from them
    """

    count: int = 0
    inputs: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    cross: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    input_sum: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    output_sum: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    failed: str = ""

    def add_calls(self, read: Sequence[Tensor], wanted: Sequence[Tensor], kept: Tensor | None) -> None:
        """Adds what was seen in one batch, call by call."""
        if len(read) != len(wanted):
            self.failed = DIFFERS
            return
        for x, y in zip(read, wanted, strict=True):
            self.add(x, y, kept)

    def add(self, x: Tensor, y: Tensor, kept: Tensor | None) -> None:
        """
        :param x: (g, positions, n)
        :param y: (positions, channels of the original)
        """
        groups, positions, _ = x.shape
        if len(y) != positions:
            self.failed = DIFFERS
        if len(y) != positions or not positions:
            return
        left = (y if kept is None else y[:, kept.to(y.device)]).reshape(positions, groups, -1).transpose(0, 1)
        self.count += positions
        self.inputs = self.inputs.to(x.device) + (x.transpose(1, 2) @ x).double()
        self.cross = self.cross.to(x.device) + (left.transpose(1, 2) @ x).double()
        self.input_sum = self.input_sum.to(x.device) + x.sum(1, dtype=torch.float64)
        self.output_sum = self.output_sum.to(x.device) + y.sum(0, dtype=torch.float64)

    def reason(self) -> str:
        """Why nothing can be learned from them; empty when something can."""
        if self.failed:
            return self.failed
        if not self.count:
            return "no calibration sample reaches it"
        sums = (self.inputs, self.cross, self.output_sum)
        return "" if all(bool(torch.isfinite(part).all()) for part in sums) else "not all that it reads or gives is finite"


class _Enough(BaseException):
    """No error: what lies behind the last layer of interest need not be computed. No network's `except` may stop it."""


@torch.no_grad()
def gather(
    original: nn.Module, compressed: nn.Module, layers: Sequence[Layer], batches: Sequence[Any], seed: int
) -> dict[str, Moments]:
    """Moments of some layers, by kernel name, with the compressed network as it is now. Both networks in eval mode.

    :param batches: inputs
    :param seed: of the positions that are looked at
    """
    found = {layer.name: Moments() for layer in layers}
    generator = torch.Generator().manual_seed(seed)
    for inputs in batches:
        drawn: dict[str, list[tuple[Positions, tuple[int, ...]]]] = {layer.name: [] for layer in layers}
        wanted: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
        read: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}

        def given(
            name: str, module: nn.Module, inputs: Tensor, outputs: Tensor, drawn: Any = drawn, wanted: Any = wanted
        ) -> None:
            if found[name].count == 0 and not is_product(module, inputs, outputs):
                found[name].failed = NO_PRODUCT
            if found[name].failed:
                return
            at = draw_positions(module, outputs, generator)
            drawn[name].append((at, _places(module, outputs)))
            wanted[name].append(outputs_at(module, outputs, at))

        def seen(name: str, module: nn.Module, inputs: Tensor, outputs: Tensor, drawn: Any = drawn, read: Any = read) -> None:
            at, places = drawn[name][len(read[name])] if len(read[name]) < len(drawn[name]) else (None, None)
            if at is not None and places == _places(module, outputs):  # else too few are read, and that is noticed
                read[name].append(inputs_at(module, inputs, at))

        _watch(original, layers, inputs, given)
        _watch(compressed, layers, inputs, seen)
        for layer in layers:
            found[layer.name].add_calls(read[layer.name], wanted[layer.name], layer.kept)
    return found


def _watch(
    network: nn.Module, layers: Sequence[Layer], inputs: Any, look: Callable[[str, nn.Module, Tensor, Tensor], None]
) -> None:
    """Runs a network until all layers were called as often as they are in a forward pass."""
    left = sum(layer.calls for layer in layers)

    def hook(name: str) -> Callable[..., None]:
        def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            nonlocal left
            entered, result = first_float((args, kwargs)), first_output(output)
            if entered is not None and result is not None:
                look(name, module, entered.detach(), result.detach())
            left -= 1
            if left <= 0:
                raise _Enough

        return after

    handles = [network.get_submodule(layer.path).register_forward_hook(hook(layer.name), with_kwargs=True) for layer in layers]
    try:
        with suppress(_Enough):
            steady_call(network, inputs)
    finally:
        for handle in handles:
            handle.remove()


def is_product(module: nn.Module, inputs: Tensor, outputs: Tensor) -> bool:
    """Whether a layer gives its weight times what it reads, plus its bias, as far as that can be told.

    (Subclasses of convolutions standardise their weight first, or pad by themselves.)

    :param inputs: what the module was called with
    :param outputs: what it returned
    """
    if _expected_places(module, inputs) != _places(module, outputs):
        return False
    at = tuple(index[:COMPARED] for index in draw_positions(module, outputs, torch.Generator().manual_seed(0)))
    read, given = inputs_at(module, inputs, at), outputs_at(module, outputs, at)
    if not given.numel() or not bool(torch.isfinite(given).all()):
        return True
    rows = as_rows(module.weight.detach().float(), 1 if is_hf_conv1d(module) else 0)  # type: ignore[union-attr,operator]
    rows = rows.reshape(len(read), -1, rows.shape[1])
    product = (read @ rows.transpose(1, 2)).transpose(0, 1).reshape(len(given), -1)
    if isinstance(module.bias, Tensor):
        product = product + module.bias.detach().float()
    return float((product - given).abs().amax()) <= CLOSE * float(given.abs().amax()) + CLOSE**2


def _expected_places(module: nn.Module, inputs: Tensor) -> tuple[int, ...]:
    """The shape of the result of `rows @ input` at each place, without its channels."""
    if not isinstance(module, CONVOLUTIONS):
        return tuple(inputs.shape[:-1])
    dimensions = len(module.kernel_size)
    padded = _padded(module, inputs if inputs.ndim > dimensions + 1 else inputs[None])
    reach = [(size - 1) * apart + 1 for size, apart in zip(module.kernel_size, module.dilation, strict=True)]
    spatial = padded.shape[2:]
    steps = [(n - r) // s + 1 for n, r, s in zip(spatial, reach, module.stride, strict=True)]
    return (*inputs.shape[: inputs.ndim - dimensions - 1], *steps)


def _places(module: nn.Module, outputs: Tensor) -> tuple[int, ...]:
    """The shape of a result without its channels."""
    channels = outputs.ndim - len(module.kernel_size) - 1 if isinstance(module, CONVOLUTIONS) else outputs.ndim - 1
    return tuple(outputs.shape[:channels] + outputs.shape[channels + 1 :])


def draw_positions(module: nn.Module, outputs: Tensor, generator: torch.Generator) -> Positions:
    """Places of a convolution's result, the same for all samples, as one index for each dimension; else rows."""
    if not isinstance(module, CONVOLUTIONS):
        count = outputs.numel() // outputs.shape[-1]
        return (_some(count, min(POSITIONS, max(1, VALUES // outputs.shape[-1])), generator),)
    dimensions = len(module.kernel_size)
    shape = outputs.shape[-dimensions:]
    samples = outputs.shape[0] if outputs.ndim > dimensions + 1 else 1
    flat = _some(math.prod(shape), max(1, POSITIONS // max(1, samples)), generator)
    return tuple(torch.unravel_index(flat, shape))


def _some(count: int, wanted: int, generator: torch.Generator) -> Tensor:
    return torch.arange(count) if count <= wanted else torch.randperm(count, generator=generator)[:wanted]


def inputs_at(module: nn.Module, inputs: Tensor, at: Positions) -> Tensor:
    """What rows are multiplied with at some positions: (groups, positions, inputs of a group), float32."""
    at = tuple(index.to(inputs.device) for index in at)
    if not isinstance(module, CONVOLUTIONS):
        return inputs.reshape(-1, inputs.shape[-1])[at[0]].float()[None]
    dimensions = len(module.kernel_size)
    inputs = _padded(module, inputs if inputs.ndim > dimensions + 1 else inputs[None])
    for dim, (size, apart, stride) in enumerate(zip(module.kernel_size, module.dilation, module.stride, strict=True)):
        inputs = inputs.unfold(2 + dim, (size - 1) * apart + 1, stride)[..., ::apart]
    places: tuple[Any, ...] = (slice(None), slice(None), *at)
    windows = inputs[places].float().movedim(2, 1)  # (samples, positions, channels, window)
    width = math.prod(windows.shape[2:]) // module.groups
    return windows.reshape(windows.shape[0] * windows.shape[1], module.groups, width).transpose(0, 1)


def _padded(module: nn.Module, inputs: Tensor) -> Tensor:
    """The input with the margins that a convolution adds; the last dimension comes first in torch's list of them."""
    assert isinstance(module, CONVOLUTIONS)
    if isinstance(module.padding, str):
        widths = [
            0 if module.padding == "valid" else d * (k - 1) for k, d in zip(module.kernel_size, module.dilation, strict=True)
        ]
        sides = [(width // 2, width - width // 2) for width in widths]
    else:
        sides = [(width, width) for width in module.padding]
    flat = [width for pair in reversed(sides) for width in pair]
    if not any(flat):
        return inputs
    return F.pad(inputs, flat, mode="constant" if module.padding_mode == "zeros" else module.padding_mode)


def outputs_at(module: nn.Module, outputs: Tensor, at: Positions) -> Tensor:
    """What a module gives at some positions: (positions, channels), float32."""
    at = tuple(index.to(outputs.device) for index in at)
    if not isinstance(module, CONVOLUTIONS):
        return outputs.reshape(-1, outputs.shape[-1])[at[0]].float()
    outputs = outputs if outputs.ndim > len(module.kernel_size) + 1 else outputs[None]
    places: tuple[Any, ...] = (slice(None), slice(None), *at)
    found = outputs[places].float().movedim(2, 1)
    return found.reshape(-1, found.shape[2])

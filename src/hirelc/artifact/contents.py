"""What a file holds, as values: what a trained network gives, what a reader finds."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hirelc.compression.activations import ActivationSite
from hirelc.compression.apply import CompressedNetwork
from hirelc.compression.quantize import Quantized
from hirelc.compression.rate import entropy_bits
from hirelc.compression.rest import STEPS_PER_DEVIATION, CodedTensor, code, restore
from hirelc.cost import SCALE_BITS
from hirelc.errors import FormatError
from hirelc.layout import Layout, StoredTensor, layout_of
from hirelc.network.norms import Centre, batchnorm_centres, folded_norms
from hirelc.network.surgery import Kept
from hirelc.network.trace import float_kind, unique_state

# Times, for BatchNorms: 0.8 % more bytes at half a bit per weight, and a fifth of the divergence (decision 0020)
FINER = 3.0
LARGEST_SHARE = 0.1  # of the file: scales, norms, biases and embeddings together
RawArray = NDArray[Any]  # float16, float32 or int64


@dataclass(frozen=True)
class Contents:
    """The contents of a file.

    :param kernels: codes and scales by name
    :param rest: the other tensors by name: integers with a step, or a raw array of the tensor's shape
    :param activations: where activations are quantized; empty when they stay float
    """

    layout: Layout
    kept: Kept
    kernels: dict[str, Quantized]
    rest: dict[str, CodedTensor | RawArray]
    activations: tuple[ActivationSite, ...] = ()

    def value(self, tensor: StoredTensor) -> Tensor:
        """A tensor of the rest, float32 or int64."""
        return value_of(self.rest[tensor.name], tuple(tensor.shape))


def value_of(stored: CodedTensor | RawArray, shape: tuple[int, ...]) -> Tensor:
    """What is read back, float32 or int64."""
    if isinstance(stored, CodedTensor):
        return torch.from_numpy(restore(stored)).view(shape)
    wide = np.int64 if stored.dtype == np.int64 else np.float32
    return torch.from_numpy(stored.astype(wide)).view(shape)


def contents_of(compressed: CompressedNetwork) -> Contents:
    """What the file of a compressed network holds. The network is not changed.

    :raises FormatError: a weight, scale or norm is not finite, or does not fit the type it is stored in
    """
    if any(tensor.device.type != "cpu" for tensor in compressed.state_dict().values()):
        compressed = copy.deepcopy(compressed).cpu()  # a copy takes longer than all that follows
    layout = layout_of(compressed.spec, compressed.policy)
    centres = batchnorm_centres(compressed.network)
    folded, state = folded_norms(compressed.network), unique_state(compressed.network)
    state |= {name: value for name, value in folded.items() if name in state}
    weights, quantizers = dict(compressed.network.named_parameters()), compressed.quantizer_of()
    kernels = {}
    for kernel in layout.kernels:
        found = quantizers[kernel.name].codes(weights[kernel.name])
        if not bool(torch.isfinite(found.scale).all() and torch.isfinite(weights[kernel.name]).all()):
            raise FormatError(f"{kernel.name}: not all of its weights and scales are finite numbers")
        kernels[kernel.name] = found
    rest = _rest(layout, state, kernels, centres)
    kinds = {name: "coded" if isinstance(v, CodedTensor) else str(v.dtype) for name, v in rest.items()}
    layout = replace(layout, rest=tuple(replace(t, kind=kinds[t.name]) for t in layout.rest))
    return Contents(layout, compressed.kept, kernels, rest, compressed.sites())


def _rest(
    layout: Layout, state: dict[str, Tensor], kernels: dict[str, Quantized], centres: Mapping[str, Centre]
) -> dict[str, CodedTensor | RawArray]:
    """The other tensors, as finely as a tenth of the file allows: beside codes of one bit, five are too many."""
    codes = sum(entropy_bits(q.codes.reshape(-1).long()) for q in kernels.values())
    scales = SCALE_BITS * sum(q.scale.numel() for q in kernels.values())
    rest: dict[str, CodedTensor | RawArray] = {}
    for steps in STEPS_PER_DEVIATION:
        norms = _norms(layout, state, centres, FINER * steps)
        rest = {t.name: norms[t.name] if t.name in norms else _stored(t, state[t.name], steps) for t in layout.rest}
        symbols = [v.symbols for v in rest.values() if isinstance(v, CodedTensor) and v.symbols.size]
        joined = torch.from_numpy(np.concatenate(symbols)) if symbols else torch.zeros(0, dtype=torch.int32)
        values = entropy_bits((joined - joined.min()).long()) if symbols else 0.0
        if values + scales <= LARGEST_SHARE * (codes + values + scales):
            break
    return rest


def _norms(
    layout: Layout, state: dict[str, Tensor], centres: Mapping[str, Centre], steps: float
) -> dict[str, CodedTensor | RawArray]:
    """Folded BatchNorms, finer than the rest: every value behind a convolution goes through them, layer after layer."""
    stored = {tensor.name: tensor for tensor in layout.rest}
    norms: dict[str, CodedTensor | RawArray] = {}
    for name, centre in centres.items():
        factor = centre.tamed(state[centre.factor])
        norms[centre.factor] = _stored(stored[centre.factor], factor, steps)
        # the factor's rounding times a large mean would move the whole channel: the shift makes up for it
        factor = value_of(norms[centre.factor], tuple(factor.shape)).double()
        shift = centre.bias - centre.mean * factor
        norms[name] = _stored(stored[name], shift, steps, centre.deviation or math.inf)
    return norms


def _stored(
    tensor: StoredTensor, value: Tensor, steps_per_deviation: float, at_most: float = math.inf
) -> CodedTensor | RawArray:
    array = value.detach().cpu().numpy()
    kind = tensor.kind
    if kind == "coded":
        if not np.isfinite(array).all():
            raise FormatError(f"{tensor.name}: not all of its values are finite numbers")
        coded = code(array.astype(np.float32), steps_per_deviation, at_most)
        if coded is not None:
            return coded
        kind = float_kind(tensor.name, value)
    with np.errstate(over="ignore"):
        values: RawArray = array.astype(kind)
    if kind == "float16" and not np.isfinite(values).all():
        raise FormatError(f"{tensor.name}: not all of its values are finite numbers in {kind}")
    return values

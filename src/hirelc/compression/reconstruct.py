"""Layer-wise reconstruction: compressed kernels made to give what the original gives, without any gradient.

Block after block, in the order in which the network computes: the weights of a layer are refitted by least squares to
what the original's layer gives, reading what the compressed network really gives it (so that losses before it, pruned
channels included, are made good as far as what remains allows), and rounded with `rounding.round_columns`. Biases, or
the mean of a BatchNorm behind the layer, take what is left of the mean error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hirelc.compression.apply import CompressedNetwork
from hirelc.compression.moments import Layer, Moments, find_layers, gather
from hirelc.compression.quantize import as_rows, from_rows
from hirelc.compression.rounding import refit, round_columns
from hirelc.network.calling import head

EXAMPLES = 2  # samples to find the order of the layers with


@dataclass(frozen=True)
class Reconstruction:
    """What the reconstructions of one run share.

    :param batches: inputs of the calibration samples, on the network's device
    :param seed: of the positions that are looked at
    """

    original: nn.Module
    batches: Sequence[Any]
    seed: int = 0

    @torch.no_grad()
    def __call__(self, compressed: CompressedNetwork) -> dict[str, str]:
        """Moves the kernels onto their levels, and biases and means to where they belong, in place.

        :returns: kernels that were rounded by themselves -> the reason
        """
        compressed.eval()
        weights = dict(compressed.network.named_parameters())
        layers, left = find_layers(compressed, head(self.batches[0], EXAMPLES))
        for name, quantizer in compressed.quantizer_of().items():
            if name in left:
                weights[name].copy_(quantizer(weights[name]))
        for _, block in groupby(layers, lambda layer: (layer.kernel.block, layer.kernel.block is None and layer.name)):
            stage = list(block)
            found = gather(self.original, compressed.network, stage, self.batches, self.seed)
            for layer in stage:
                moments, weight = found[layer.name], weights[layer.name]
                if reason := moments.reason():
                    left[layer.name] = reason
                    weight.copy_(compressed.quantizer_of()[layer.name](weight))
                    continue
                _Kernel(compressed, layer, moments, weight).solve()
        return left


class _Kernel:
    """One kernel with the statistics that belong to it."""

    def __init__(self, compressed: CompressedNetwork, layer: Layer, moments: Moments, weight: Tensor) -> None:
        self.layer, self.weight, self.moments = layer, weight, moments
        self.quantizer = compressed.quantizer_of()[layer.name]
        self.groups = len(moments.inputs)
        rows = as_rows(weight.float(), layer.kernel.channel_dim)
        self.rows = rows.reshape(self.groups, -1, rows.shape[1]).double()  # (g, m, n)
        self.bias: Tensor | None = getattr(compressed.network.get_submodule(layer.path), "bias", None)
        norm = None if layer.norm is None else compressed.network.get_submodule(layer.norm)
        self.running_mean = norm.running_mean if isinstance(norm, _BatchNorm) else None
        count = moments.count
        self.mean_in = moments.input_sum / count  # (g, n)
        self.wanted = moments.output_sum / count  # all channels of the original
        self.mean_out = self._kept(self.wanted).reshape(self.groups, -1)  # (g, m)

    def _kept(self, values: Tensor) -> Tensor:
        return values if self.layer.kept is None else values[self.layer.kept.to(values.device)]

    @property
    def mean_is_free(self) -> bool:
        """Whether a bias or a running mean can take any error of the mean."""
        return self.bias is not None or self.running_mean is not None

    def solve(self) -> None:
        inputs, cross = self.moments.inputs / self.moments.count, self.moments.cross / self.moments.count
        if self.mean_is_free:
            inputs = inputs - self.mean_in[:, :, None] * self.mean_in[:, None, :]
            cross = cross - self.mean_out[:, :, None] * self.mean_in[:, None, :]
        scale = self.quantizer.stored_scale().detach()
        scales = [scale] * self.groups if len(scale) == 1 else list(scale.reshape(self.groups, -1, 1))
        found = []
        for group in range(self.groups):
            weight = refit(self.rows[group], inputs[group], cross[group])
            grid, zero = self.quantizer.grid, self.quantizer.zero_point or 0
            found.append(round_columns(weight, inputs[group], grid, scales[group], zero))
        rows = torch.stack(found)
        channel_dim = self.layer.kernel.channel_dim
        self.weight.copy_(from_rows(rows.reshape(-1, rows.shape[2]), tuple(self.weight.shape), channel_dim))
        if self.mean_is_free:
            self._correct_mean(torch.einsum("gmn,gn->gm", rows.double(), self.mean_in).reshape(-1))

    def _correct_mean(self, product: Tensor) -> None:
        """Bias (or running mean) such that every channel's mean over the samples is the original's.

        :param product: mean of rows x inputs, kept channels only
        """
        missing = self.mean_out.reshape(-1) - product
        target = self.bias if self.bias is not None else self.running_mean
        assert target is not None
        if self.layer.kept is not None and len(target) == len(self.wanted):  # scattered: rows that are gone give nothing
            everywhere = self.wanted.clone()
            everywhere[self.layer.kept.to(missing.device)] = missing
            missing = everywhere
        if self.bias is not None:
            target.copy_(missing)
        else:
            target.sub_(missing)

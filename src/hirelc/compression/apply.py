"""A policy on a network: the one place where quantization and pruning meet.

Pruning comes first and is physical; the scales are then found on what is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hirelc.compression.activations import ActivationSite, SiteQuantizers
from hirelc.compression.fakequant import Quantizer
from hirelc.compression.prune import canonical, select
from hirelc.compression.quantize import coarser
from hirelc.network.calling import call
from hirelc.network.spec import NetworkSpec
from hirelc.network.surgery import Kept, cut, slices_of, slim
from hirelc.policy import Policy


class CompressedNetwork(nn.Module):
    """A slim network whose kernels pass through quantizers at every forward pass.

    Training moves the float weights of `network` and the learned steps; what is computed, and later stored, are
    always the quantized values.
    """

    def __init__(self, network: nn.Module, spec: NetworkSpec, policy: Policy, kept: Kept, quantizers: dict[str, Quantizer]):
        super().__init__()
        self.network = network
        self.spec = spec
        self.policy = policy
        self.kept = kept
        self.names = tuple(quantizers)
        self.quantizers = nn.ModuleList(quantizers.values())
        self.site_quantizers = SiteQuantizers(network, ())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        inputs = kwargs if kwargs else args if len(args) != 1 else args[0]
        return call(self.network, inputs, self.quantized())

    def quantized(self) -> dict[str, Tensor]:
        """Every kernel as it will be read back, by name; differentiable."""
        weights = dict(self.network.named_parameters())
        return {name: q(weights[name]) for name, q in zip(self.names, self.quantizers, strict=True)}

    def quantize_activations(self, sites: Iterable[ActivationSite]) -> None:
        """Quantizes activations from now on; their ranges learn with the weights."""
        self.site_quantizers = SiteQuantizers(self.network, sites)

    def sites(self) -> tuple[ActivationSite, ...]:
        """Where activations are quantized, with the ranges as they are now; empty when they are float."""
        return self.site_quantizers.sites()

    def quantizer_of(self) -> dict[str, Quantizer]:
        return dict(zip(self.names, self.quantizers, strict=True))  # type: ignore[arg-type]


def apply(
    network: nn.Module,
    spec: NetworkSpec,
    policy: Policy,
    importance: Mapping[str, Tensor],
    fisher: Mapping[str, Tensor] | None = None,
) -> CompressedNetwork:
    """Prunes and quantizes a copy of the network as the policy says.

    :param importance: per kernel, a non-negative value per weight, by which units are kept
    :param fisher: per kernel, the diagonal Fisher, by which learned steps start; None for plain squared error
    """
    policy = canonical(spec, policy)
    kept = select(spec, policy, importance)
    smaller = slim(network, spec, kept)
    weights = dict(smaller.named_parameters())
    cuts = slices_of(spec, kept)
    quantizers = {}
    for kernel in spec.kernels:
        weight_of_error = None
        if fisher is not None and kernel.name in fisher:
            weight_of_error = cut(fisher[kernel.name], cuts.get(kernel.name, []))
        quantizers[kernel.name] = Quantizer(weights[kernel.name], kernel.channel_dim, policy[kernel.name], weight_of_error)
    return CompressedNetwork(smaller, spec, policy, kept, quantizers)


def cut_fisher(fisher: Mapping[str, Tensor], compressed: CompressedNetwork) -> dict[str, Tensor]:
    """The Fisher information of what a compressed network kept of its kernels."""
    cuts = slices_of(compressed.spec, compressed.kept)
    return {name: cut(fisher[name], cuts.get(name, [])) for name in compressed.names}


@torch.no_grad()
def keep_steps(compressed: CompressedNetwork, trained: CompressedNetwork) -> None:
    """Kernels of one format in both take over the steps that training came to, as many rungs coarser or finer as their choices
    are apart. Channels that come back have the step that was found for them."""
    before = trained.quantizer_of()
    for name, quantizer in compressed.quantizer_of().items():
        known = before[name]
        if replace(known.choice, keep_ratio=1.0, coarse=0) != replace(quantizer.choice, keep_ratio=1.0, coarse=0):
            continue
        rungs = quantizer.choice.coarse - known.choice.coarse
        scale = coarser(known.scale, rungs) if rungs else known.scale
        if len(scale) == 1:
            quantizer.scale.copy_(scale)
        else:
            now, then = (_rows(which, name) for which in (compressed, trained))
            _, here, there = np.intersect1d(now, then, return_indices=True)
            quantizer.scale[torch.from_numpy(here)] = scale[torch.from_numpy(there)]
        if quantizer.zero is not None and known.zero is not None:
            quantizer.zero.copy_(known.zero)
        quantizer.trained = True


def _rows(compressed: CompressedNetwork, name: str) -> NDArray[np.int64]:
    """Which output channels of the original's kernel are left."""
    kernel = compressed.spec.by_name[name]
    left = np.arange(kernel.shape[kernel.channel_dim])
    for dim, indices in slices_of(compressed.spec, compressed.kept).get(name, []):
        if dim == kernel.channel_dim:
            left = left[indices]
    return left


def absorb(network: nn.Module, compressed: CompressedNetwork) -> None:
    """Writes the fine-tuned float weights back into the full-size network; removed places keep their old values.

    So each cycle goes on from the training of the one before.
    """
    targets = dict(network.named_parameters()) | dict(network.named_buffers())
    sources = dict(compressed.network.named_parameters()) | dict(compressed.network.named_buffers())
    cuts = slices_of(compressed.spec, compressed.kept)
    with torch.no_grad():
        for name, source in sources.items():
            if name not in targets:
                continue  # the index of kept rows
            target = targets[name]
            if name not in cuts:
                target.copy_(source)
                continue
            grids = [torch.arange(n, device=target.device) for n in target.shape]
            for dim, indices in cuts[name]:
                grids[dim] = torch.from_numpy(indices).to(target.device)
            target[torch.meshgrid(*grids, indexing="ij")] = source

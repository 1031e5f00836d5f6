"""Networks compressed without training, in memory: as the export sees them after a file has been read."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from hirelc.compression.activations import attach, observe
from hirelc.compression.apply import apply
from hirelc.export.onnx import Settings, StoredKernelCodes, export_network
from hirelc.export.parity import Parity, check_parity
from hirelc.network.spec import Kernel
from hirelc.network.trace import trace
from hirelc.policy import Choice, Granularity, Policy
from zoo import BY_NAME, build


def choose(kernel: Kernel) -> Choice:
    """Four bits and three fifths of the channels inside blocks, eight bits outside."""
    return Choice(8 if kernel.block is None else 4, 0.6, granularity=Granularity.PER_CHANNEL)


def compressed(
    network: nn.Module, inputs: Any, choice: Any = choose, activations: bool = True
) -> tuple[nn.Module, list[StoredKernelCodes], dict[str, str]]:
    """The slim network with quantized weights and activations, its kernels, and which inputs stay float."""
    spec = trace(network, inputs)
    weights = dict(network.named_parameters())
    policy = Policy.of({k.name: choice(k) for k in spec.kernels})
    found = apply(network, spec, policy, {k.name: weights[k.name].detach().square() for k in spec.kernels}).eval()
    slim = copy.deepcopy(found.network)
    kernels = []
    with torch.no_grad():
        for kernel in spec.kernels:
            weight = slim.get_parameter(kernel.name)
            codes = found.quantizer_of()[kernel.name].codes(weight)
            kernels.append(StoredKernelCodes(kernel.name, tuple(weight.shape), kernel.channel_dim, codes))
        for name, values in found.quantized().items():
            slim.get_parameter(name).copy_(values)
    left = {}
    if activations:
        seen = observe(slim, [k.name for k in kernels], [inputs])
        attach(slim, seen.sites)
        left = seen.left
    return slim, kernels, left


def exported(name: str, choice: Any = choose, activations: bool = True, **settings: Any) -> tuple[Any, Any, Parity, nn.Module]:
    """Model, table and parity of a network of the zoo, and the network."""
    entry = BY_NAME[name]
    inputs = entry.inputs()
    network, kernels, left = compressed(build(entry), inputs, choice, activations)
    model, table, probes = export_network(network, kernels, inputs, Settings(**settings), left)
    return model, table, check_parity(model, network, probes, None, inputs, 10), network


def more(inputs: Any) -> Any:
    """Another number of samples."""

    def longer(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor, tensor[:1]])

    return {k: longer(v) for k, v in inputs.items()} if isinstance(inputs, dict) else longer(inputs)

"""The only counter of bytes and multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hirelc.layout import StoredKernel, layout_of, slim_kernel_shape
from hirelc.network.spec import Kernel, NetworkSpec, Pruning
from hirelc.policy import Choice


def file_bytes(spec: NetworkSpec, policy: Mapping[str, Choice]) -> int:
    """Length of the whole file that a canonical policy leads to, to the byte."""
    return layout_of(spec, policy).file_bytes()


def block_bytes(spec: NetworkSpec, policy: Mapping[str, Choice], block: int) -> int:
    """Bytes of one block's kernels: codes, scales, zero points, masks. Norms and biases are the frame's.

    :param policy: at least the block's kernels
    """
    bits = 0
    total = 0
    couplings = set()
    for name in spec.blocks[block].kernels:
        kernel = spec.by_name[name]
        stored = StoredKernel(name, slim_kernel_shape(spec, policy, kernel), kernel.channel_dim, policy[name])
        total += stored.payload_bytes
        if policy[name].keep_ratio < 1:
            if kernel.pruning is Pruning.COUPLED:
                couplings.add(spec.coupling_of[name])
            else:
                bits += kernel.channels
    bits += sum(spec.couplings[i].units for i in couplings)
    return total + bits // 8


def macs(spec: NetworkSpec, policy: Mapping[str, Choice] | None = None) -> int:
    """Multiply-accumulates of all kernels for one sample; of the original without a policy."""
    if policy is None:
        return sum(kernel.macs for kernel in spec.kernels)
    return sum(_kernel_macs(spec, policy, kernel) for kernel in spec.kernels)


def _kernel_macs(spec: NetworkSpec, policy: Mapping[str, Choice], kernel: Kernel) -> int:
    left = math.prod(slim_kernel_shape(spec, policy, kernel))
    return kernel.macs * left // kernel.weights


def parameters(spec: NetworkSpec, policy: Mapping[str, Choice]) -> int:
    """Stored numbers: codes of all kernels, and every other tensor's items (BatchNorms folded to two per channel)."""
    layout = layout_of(spec, policy)
    return sum(k.codes for k in layout.kernels) + sum(t.items for t in layout.rest)

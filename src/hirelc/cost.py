"""The only counter of bytes and multiply-accumulates before a file is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from hirelc.layout import StoredKernel, kept_rows, kept_units, layout_of, slim_kernel_shape, slim_shape
from hirelc.network.spec import Kernel, NetworkSpec, Pruning
from hirelc.policy import Choice

SCALE_BITS, VALUE_BITS = 3.4, 5.4  # what scales, and values that are no kernel's, take on the bench networks


@dataclass(frozen=True)
class SizeModel:
    """Bytes of files that are not written yet.

    What the coder makes of codes is known exactly only once they are coded; before, it follows from how the codes of
    each kernel are spread under each format. `benchmarks/file.py` says how far the two are apart.

    :param rate: (kernel, choice) -> expected bits per weight kept, before any pruning
    :param overhead: bytes of header, manifest and raw section, from a file that was written (`with_overhead_of`)
    """

    spec: NetworkSpec
    rate: Callable[[str, Choice], float]
    overhead: float = 0.0

    def with_overhead_of(self, policy: Mapping[str, Choice], file_bytes: int) -> SizeModel:
        """The same model, right about a file of this length."""
        return replace(self, overhead=self.overhead + file_bytes - self.exact_bytes(policy))

    def file_bytes(self, policy: Mapping[str, Choice]) -> int:
        """Length of the file that a canonical policy leads to."""
        return math.ceil(self.exact_bytes(policy))

    def block_bytes(self, policy: Mapping[str, Choice], block: int) -> int:
        """Bytes of one block's kernels: codes, scales, masks. Norms and biases are the frame's.

        :param policy: at least the block's kernels
        """
        names = self.spec.blocks[block].kernels
        couplings = _couplings_of(self.spec, names)
        return math.ceil((sum(self._kernel_bits(policy, n) for n in names) + self._mask_bits(policy, names, couplings)) / 8)

    def block_share(self, policy: Mapping[str, Choice], block: int) -> float:
        """Bytes of a file that follow from one block's choices: its kernels, masks, and norms and biases of their width.

        The rest of the file is the same whatever the blocks choose, where `blocks_are_alone`.

        :param policy: at least the block's kernels
        """
        names = self.spec.blocks[block].kernels
        couplings = _couplings_of(self.spec, names)
        bits = sum(self._kernel_bits(policy, name) for name in names) + self._mask_bits(policy, names, couplings)
        rest = [t for t in self.spec.rest if t.kind == "coded" and couplings & _couplings_through(self.spec, t.name)]
        items = sum(math.prod(slim_shape(self.spec, policy, t.name, t.shape)) for t in rest)
        return (bits + VALUE_BITS * items) / 8

    def exact_bytes(self, policy: Mapping[str, Choice]) -> float:
        """The same, not rounded."""
        names = [kernel.name for kernel in self.spec.kernels]
        bits = sum(self._kernel_bits(policy, name) for name in names)
        bits += self._mask_bits(policy, names, set(range(len(self.spec.couplings))))
        rest = sum(t.items for t in layout_of(self.spec, policy).rest if t.kind == "coded")
        return self.overhead + (bits + VALUE_BITS * rest) / 8

    def _kernel_bits(self, policy: Mapping[str, Choice], name: str) -> float:
        kernel = self.spec.by_name[name]
        stored = StoredKernel(name, slim_kernel_shape(self.spec, policy, kernel), kernel.channel_dim, policy[name])
        return stored.codes * self.rate(name, policy[name]) + stored.scales * SCALE_BITS

    def _mask_bits(self, policy: Mapping[str, Choice], names: Iterable[str], couplings: Iterable[int]) -> float:
        bits = 0.0
        for name in names:
            kernel = self.spec.by_name[name]
            if kernel.pruning is Pruning.ROWS:
                bits += _binary_bits(kernel.channels, kept_rows(kernel, policy[name].keep_ratio, self.spec.align))
        return bits + sum(_binary_bits(self.spec.couplings[i].units, kept_units(self.spec, policy, i)) for i in couplings)


def blocks_are_alone(spec: NetworkSpec) -> bool:
    """Whether no tensor's shape follows from two blocks, or from a block that does not own it."""
    owned = [_couplings_of(spec, block.kernels) for block in spec.blocks]
    inside = {name: index for index, block in enumerate(spec.blocks) for name in block.kernels}
    for name in [*spec.by_name, *(tensor.name for tensor in spec.rest)]:
        through = _couplings_through(spec, name)
        owners = {index for index, couplings in enumerate(owned) if couplings & through}
        if len(owners) > 1 or (name in spec.by_name and owners - {inside.get(name)}):
            return False
    return all(through in set().union(*owned) for through in range(len(spec.couplings)))


def _couplings_of(spec: NetworkSpec, names: Iterable[str]) -> set[int]:
    """Couplings through the output channels of kernels."""
    return {spec.coupling_of[name] for name in names if name in spec.coupling_of}


def _couplings_through(spec: NetworkSpec, name: str) -> set[int]:
    """Couplings through any dimension of a tensor."""
    return {index for index, _ in spec.members_of.get(name, [])}


def _binary_bits(full: int, kept: int) -> float:
    """An ideal coder's bits for which of `full` are kept."""
    lost = full - kept
    return sum(n * math.log2(full / n) for n in (kept, lost) if n)


def macs(spec: NetworkSpec, policy: Mapping[str, Choice] | None = None) -> int:
    """Multiply-accumulates of all kernels for one sample; of the original without a policy."""
    if policy is None:
        return sum(kernel.macs for kernel in spec.kernels)
    return sum(_kernel_macs(spec, policy, kernel) for kernel in spec.kernels)


def block_macs(spec: NetworkSpec, policy: Mapping[str, Choice], block: int) -> int:
    """Multiply-accumulates of one block's kernels for one sample.

    :param policy: at least the block's kernels
    """
    return sum(_kernel_macs(spec, policy, spec.by_name[name]) for name in spec.blocks[block].kernels)


def _kernel_macs(spec: NetworkSpec, policy: Mapping[str, Choice], kernel: Kernel) -> int:
    left = math.prod(slim_kernel_shape(spec, policy, kernel))
    return kernel.macs * left // kernel.weights


def parameters(spec: NetworkSpec, policy: Mapping[str, Choice]) -> int:
    """Stored numbers: codes of all kernels, and every other tensor's items (BatchNorms folded to two per channel)."""
    layout = layout_of(spec, policy)
    return sum(k.codes for k in layout.kernels) + sum(t.items for t in layout.rest)

"""Looks into a file without its network: codes, scales and masks of each kernel as numpy arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hirelc.artifact.container import Contents, read
from hirelc.layout import StoredKernel
from hirelc.policy import Choice


@dataclass(frozen=True)
class KernelView:
    """One kernel of a file.

    :param shape: what is left of it after pruning
    :param codes: level indices, uint8, (channels kept, weights per channel)
    :param scales: float32, (channels kept,) or (1,)
    :param zero_point: the level index that means zero, or None
    :param mask: bool, (channels of the original,); None when all were kept or they went with a coupling
    :param size_bytes: codes, scales and zero point in the file
    """

    name: str
    shape: tuple[int, ...]
    choice: Choice
    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zero_point: int | None
    mask: NDArray[np.bool_] | None
    size_bytes: int

    @property
    def weights(self) -> int:
        return int(self.codes.size)

    @property
    def bits_per_weight(self) -> float:
        """Bits in the file per weight kept, scales included."""
        return 8 * self.size_bytes / max(1, self.weights)

    @cached_property
    def entropy(self) -> float:
        """Zero-order entropy of the codes, bits per weight: what an ideal coder of single codes would need."""
        counts = np.bincount(self.codes.ravel())
        shares = counts[counts > 0] / max(1, self.weights)
        return float(-(shares * np.log2(shares)).sum()) + 0.0


@dataclass(frozen=True)
class FileView:
    """A .hirelc file, opened.

    :param kernels: in the order of the file, by name
    :param rest: every other tensor by name, float32 or int64
    """

    size_bytes: int
    kernels: dict[str, KernelView]
    rest: dict[str, NDArray[np.float32] | NDArray[np.int64]]


def open_file(path: str | Path) -> FileView:
    """Opens a file for looking at; no network is built.

    :raises FormatError: whatever is wrong with it
    """
    path = Path(path)
    contents = read(path)
    kernels = {stored.name: _view(stored, contents) for stored in contents.layout.kernels}
    return FileView(path.stat().st_size, kernels, {name: tensor.numpy() for name, tensor in contents.rest.items()})


def _view(stored: StoredKernel, contents: Contents) -> KernelView:
    quantized = contents.kernels[stored.name]
    full = {row.kernel: row.full for row in contents.layout.rows}
    mask = None
    if stored.name in full:
        mask = np.zeros(full[stored.name], dtype=np.bool_)
        mask[list(contents.kept.rows[stored.name])] = True
    return KernelView(
        name=stored.name,
        shape=stored.shape,
        choice=stored.choice,
        codes=quantized.codes.numpy(),
        scales=quantized.scale.numpy().ravel(),
        zero_point=quantized.zero_point,
        mask=mask,
        size_bytes=stored.payload_bytes,
    )

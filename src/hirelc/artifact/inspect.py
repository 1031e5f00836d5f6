"""Looks into a file without its network: codes, scales and masks of each kernel as numpy arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hirelc.artifact.container import HEADER, coded_parts, mask_models, models_of, open_container
from hirelc.artifact.contents import Contents
from hirelc.artifact.entropy import Model
from hirelc.compression.activations import ActivationSite
from hirelc.compression.grid import exponents_of
from hirelc.compression.rest import CodedTensor
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
    :param coded_bits: what its codes take in the file, by the model that codes them
    :param scale_bits: what its scales take
    """

    name: str
    shape: tuple[int, ...]
    choice: Choice
    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zero_point: int | None
    mask: NDArray[np.bool_] | None
    coded_bits: float
    scale_bits: float

    @property
    def size_bytes(self) -> int:
        """Bytes of codes and scales, rounded up: they share one stream with all others."""
        return math.ceil((self.coded_bits + self.scale_bits) / 8)

    @property
    def weights(self) -> int:
        return int(self.codes.size)

    @property
    def bits_per_weight(self) -> float:
        """Bits in the file per weight kept, scales included."""
        return (self.coded_bits + self.scale_bits) / max(1, self.weights)

    @cached_property
    def entropy(self) -> float:
        """Zero-order entropy of the codes, bits per weight: what an ideal coder of single codes would need."""
        return zero_order_entropy(self.codes)


@dataclass(frozen=True)
class FileView:
    """A .hirelc file, opened.

    :param kernels: in the order of the file, by name
    :param rest: every other tensor by name, float32 or int64
    :param parts: bytes of each part of the file: header, manifest, raw, masks, scales, values, codes
    :param entropy_bits: zero-order entropy of everything that is coded, summed per tensor
    :param activations: where activations are quantized; empty when they stay float
    """

    size_bytes: int
    kernels: dict[str, KernelView]
    rest: dict[str, NDArray[np.float32] | NDArray[np.int64]]
    parts: dict[str, float]
    entropy_bits: float
    activations: tuple[ActivationSite, ...]


def zero_order_entropy(symbols: NDArray[Any]) -> float:
    """Bits per symbol that an ideal coder of single symbols needs, its table aside."""
    _, counts = np.unique(symbols, return_counts=True)
    shares = counts / max(1, symbols.size)
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def open_file(path: str | Path) -> FileView:
    """Opens a file for looking at; no network is built.

    >>> view = hirelc.open_file("runs/mine/model.hirelc")
    >>> kernel = view.kernels["1.0.weight"]
    >>> 2 <= kernel.choice.bits <= 8, kernel.codes.shape == (kernel.shape[0], 16)
    (True, True)

    :raises FormatError: whatever is wrong with it
    """
    opened = open_container(Path(path))
    contents, manifest = opened.contents, opened.manifest
    models = models_of(manifest)
    kernels = {}
    for stored, coding in zip(contents.layout.kernels, manifest.kernels, strict=True):
        scales = exponents_of(contents.kernels[stored.name].scale).numpy() - coding.scale_origin
        kernels[stored.name] = _view(
            stored,
            contents,
            sum(
                _bits(model, part)
                for part, model in coded_parts(contents.kernels[stored.name], stored, [models[i] for i in coding.models])
            ),
            0.0 if manifest.scales is None else _bits(models[manifest.scales], scales),
        )
    coded = [v.symbols for v in contents.rest.values() if isinstance(v, CodedTensor)]
    values = sum(_bits(models[manifest.values], v) for v in coded) if manifest.values is not None else 0.0
    parts = {
        "header": float(HEADER.size),
        "manifest": float(opened.manifest_bytes),
        "raw": float(opened.raw_bytes),
        "masks": sum(float(m.bits[0] * m.weights[0] + m.bits[-1] * m.weights[-1]) for m in mask_models(contents.layout)) / 8,
        "scales": sum(k.scale_bits for k in kernels.values()) / 8,
        "values": values / 8,
        "codes": sum(k.coded_bits for k in kernels.values()) / 8,
    }
    entropy = sum(zero_order_entropy(v) * v.size for v in coded)
    entropy += sum(k.entropy * k.weights + zero_order_entropy(k.scales) * k.scales.size for k in kernels.values())
    rest = {t.name: contents.value(t).numpy() for t in contents.layout.rest}
    return FileView(opened.file_bytes, kernels, rest, parts, entropy, contents.activations)


def _bits(model: Model, symbols: NDArray[Any]) -> float:
    return float(model.bits[symbols.ravel().astype(np.int64) - model.first].sum())


def _view(stored: StoredKernel, contents: Contents, coded_bits: float, scale_bits: float) -> KernelView:
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
        coded_bits=coded_bits,
        scale_bits=scale_bits,
    )

"""Writes and reads the container: safetensors sections laid out as `layout` says. No pickle, no code."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
import torch
from torch import Tensor

from hirelc.artifact.manifest import parse_manifest
from hirelc.artifact.packing import pack_codes, unpack_codes
from hirelc.compression.apply import CompressedNetwork
from hirelc.compression.quantize import Quantized
from hirelc.errors import FormatError
from hirelc.formats import has_zero_point, levels_of
from hirelc.layout import DIGEST_BYTES, Layout, layout_of
from hirelc.network.norms import fold_batchnorms
from hirelc.network.surgery import Kept
from hirelc.network.trace import unique_state

NUMPY = {"U8": np.uint8, "F16": np.float16, "F32": np.float32, "I64": np.int64}


@dataclass(frozen=True)
class Contents:
    """A file, read: its layout, what is kept, codes and scales per kernel, and the other tensors in float32 or int64."""

    layout: Layout
    kept: Kept
    kernels: dict[str, Quantized]
    rest: dict[str, Tensor]


def pack(compressed: CompressedNetwork) -> bytes:
    """The file's bytes. The network is not changed.

    :raises FormatError: a weight, scale or norm is not finite, or does not fit the type it is stored in
    """
    layout = layout_of(compressed.spec, compressed.policy)
    folded = copy.deepcopy(compressed.network).cpu()
    fold_batchnorms(folded)
    state = unique_state(folded)
    weights = dict(folded.named_parameters())
    quantized = {name: q.cpu().codes(weights[name]) for name, q in copy.deepcopy(compressed).quantizer_of().items()}
    sections: dict[str, list[np.ndarray]] = {name: [] for name in layout.sections()}
    for kernel in layout.kernels:
        found = quantized[kernel.name]
        scale = found.scale.reshape(-1).numpy()
        if not np.isfinite(scale).all() or not bool(torch.isfinite(weights[kernel.name]).all()):
            raise FormatError(f"{kernel.name}: not all of its weights and scales are finite numbers")
        sections["codes"].append(pack_codes(found.codes.numpy().ravel(), kernel.choice.bits))
        sections["scales"].append(scale.astype(np.float16))
        if has_zero_point(kernel.choice):
            sections["zero_points"].append(np.array([found.zero_point], dtype=np.uint8))
    for tensor in layout.rest:
        sections[tensor.dtype].append(_stored(tensor.name, state[tensor.name], tensor.dtype))
    if layout.mask_bits:
        sections["masks"].append(np.packbits(_masks(layout, compressed.kept)))
    sections["manifest"].append(np.frombuffer(layout.manifest(), dtype=np.uint8))
    arrays = {name: np.concatenate(parts) for name, parts in sections.items() if name != "digest"}
    arrays["digest"] = _digest(arrays)
    return safetensors.numpy.save(arrays)


def _stored(name: str, tensor: Tensor, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        values = tensor.detach().cpu().numpy().ravel().astype(dtype)
    if dtype != "int64" and not np.isfinite(values).all():
        raise FormatError(f"{name}: not all of its values are finite numbers in {dtype}")
    return values


def _masks(layout: Layout, kept: Kept) -> np.ndarray:
    masks = []
    lost = list(kept.units.values())  # ascending by coupling, as the layout lists them
    for stored, units in zip(layout.couplings, lost, strict=True):
        masks.append(_mask(stored.coupling.units, units))
    for row in layout.rows:
        masks.append(_mask(row.full, kept.rows[row.kernel]))
    return np.concatenate(masks)


def _mask(full: int, kept: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(full, dtype=np.uint8)
    mask[list(kept)] = 1
    return mask


def _digest(arrays: dict[str, np.ndarray]) -> np.ndarray:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        if name != "digest":
            digest.update(name.encode() + arrays[name].tobytes())
    return np.frombuffer(digest.digest()[:DIGEST_BYTES], dtype=np.uint8)


def read(source: Path | bytes) -> Contents:
    """Reads a file or its bytes.

    :raises FormatError: whatever is wrong with it
    """
    if isinstance(source, Path):
        try:
            return read(source.read_bytes())
        except OSError as error:
            raise FormatError(f"{source}: cannot be read: {error.strerror}") from None
        except FormatError as error:
            raise FormatError(f"{source}: {error}") from error
    try:
        arrays = safetensors.numpy.load(source)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"not a .hirelc file: {error}") from None
    if "manifest" not in arrays or "digest" not in arrays:
        raise FormatError("not a .hirelc file: it has no manifest (is it a plain safetensors file?)")
    if not np.array_equal(_digest(arrays), arrays["digest"]):
        raise FormatError("the file is damaged: its digest does not match its contents")
    layout = parse_manifest(arrays["manifest"].tobytes())
    expected = {name: (NUMPY[dtype], items) for name, (dtype, items) in layout.sections().items() if name != "manifest"}
    for name, (dtype, items) in expected.items():
        if name not in arrays or arrays[name].dtype != dtype or arrays[name].shape != (items,):
            raise FormatError(f"section {name!r}: {items} items of {np.dtype(dtype).name} expected")
    extra = set(arrays) - set(expected) - {"manifest"}
    if extra:
        raise FormatError(f"section {sorted(extra)[0]!r}: the format has none of that name")
    return Contents(layout, _kept(layout, arrays), _kernels(layout, arrays), _rest(layout, arrays))


def _kernels(layout: Layout, arrays: dict[str, np.ndarray]) -> dict[str, Quantized]:
    kernels = {}
    code_at = scale_at = zero_at = 0
    for kernel in layout.kernels:
        packed = arrays["codes"][code_at : code_at + kernel.code_bytes] if kernel.code_bytes else np.empty(0, np.uint8)
        codes = unpack_codes(packed, kernel.choice.bits, kernel.codes)
        scale = arrays["scales"][scale_at : scale_at + kernel.scales].astype(np.float32)
        zero_point = None
        if has_zero_point(kernel.choice):
            zero_point = int(arrays["zero_points"][zero_at])
            zero_at += 1
        if codes.size and int(codes.max()) >= len(levels_of(kernel.choice)):
            raise FormatError(f"{kernel.name}: a code beyond the levels of its format")
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise FormatError(f"{kernel.name}: scales must be positive and finite")
        rows = torch.from_numpy(codes).view(kernel.shape[kernel.channel_dim], -1)
        kernels[kernel.name] = Quantized(kernel.choice, rows, torch.from_numpy(scale).view(-1, 1), zero_point)
        code_at += kernel.code_bytes
        scale_at += kernel.scales
    return kernels


def _rest(layout: Layout, arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    at = {"float16": 0, "float32": 0, "int64": 0}
    rest = {}
    for tensor in layout.rest:
        start = at[tensor.dtype]
        at[tensor.dtype] = start + tensor.items
        values = arrays[tensor.dtype][start : at[tensor.dtype]] if tensor.items else np.empty(0, tensor.dtype)
        wide = np.int64 if tensor.dtype == "int64" else np.float32
        rest[tensor.name] = torch.from_numpy(values.astype(wide)).view(tensor.shape)
    return rest


def _kept(layout: Layout, arrays: dict[str, np.ndarray]) -> Kept:
    bits = np.unpackbits(arrays["masks"])[: layout.mask_bits] if layout.mask_bits else np.empty(0, np.uint8)
    at = 0
    units, rows = {}, {}
    for index, stored in enumerate(layout.couplings):
        units[index] = _selection(bits[at : at + stored.coupling.units], stored.kept)
        at += stored.coupling.units
    for row in layout.rows:
        rows[row.kernel] = _selection(bits[at : at + row.full], row.kept)
        at += row.full
    return Kept(units, rows)


def _selection(mask: np.ndarray, count: int) -> tuple[int, ...]:
    chosen = np.flatnonzero(mask)
    if len(chosen) != count:
        raise FormatError(f"a mask keeps {len(chosen)} of {len(mask)}, {count} were announced")
    return tuple(int(i) for i in chosen)

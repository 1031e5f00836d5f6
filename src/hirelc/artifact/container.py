"""Writes and reads the file, as docs/format.md says: header, manifest, raw section, code words. No pickle, no code."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hirelc.artifact.contents import Contents, RawArray, contents_of
from hirelc.artifact.contexts import MOST_TAPS, by_context, join, split, taps_of
from hirelc.artifact.entropy import Decoder, Model, Symbols, encode, mask_model, model_of_costs
from hirelc.artifact.manifest import KernelCoding, Manifest, parse_manifest
from hirelc.artifact.modelling import share_models, table_of
from hirelc.compression.apply import CompressedNetwork
from hirelc.compression.grid import LEAST_SCALE, MOST_SCALE, exponents_of, numbers
from hirelc.compression.quantize import Quantized
from hirelc.compression.rest import CodedTensor, is_finite
from hirelc.errors import FormatError
from hirelc.formats import levels_of
from hirelc.layout import Layout, StoredKernel
from hirelc.network.surgery import Kept
from hirelc.policy import Choice

MAGIC = b"\x89HIRELC\n"
VERSION, READABLE = 3, (2, 3)
HEADER = struct.Struct("<8sHHIII16s")
DIGEST_AT = 24


def pack(compressed: CompressedNetwork) -> bytes:
    """The bytes of the file of a compressed network. The network is not changed.

    :raises FormatError: a weight, scale or norm is not finite, or does not fit the type it is stored in
    """
    return write(contents_of(compressed))


def write(contents: Contents) -> bytes:
    """The bytes of a file. The same contents give the same bytes."""
    streams = _Streams.of(contents)
    manifest = streams.manifest.pack()
    raw = b"".join(_raw(contents, name).tobytes() for name in contents.rest if not _is_coded(contents, name))
    words = encode(streams.parts(contents.layout))
    head = HEADER.pack(MAGIC, VERSION, 0, len(manifest), len(raw), len(words), bytes(16))
    body = manifest + raw + words.astype("<u4").tobytes()
    parse_manifest(manifest, len(head) + len(body), HEADER.size)  # what cannot be read must not be written
    return head[:DIGEST_AT] + _digest(head, body) + body


def _is_coded(contents: Contents, name: str) -> bool:
    return isinstance(contents.rest[name], CodedTensor)


def _raw(contents: Contents, name: str) -> RawArray:
    stored = contents.rest[name]
    assert not isinstance(stored, CodedTensor)
    little: RawArray = stored.astype(stored.dtype.newbyteorder("<"))
    return little


def _digest(head: bytes, body: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(head[:DIGEST_AT])
    digest.update(body)
    return digest.digest()[:16]


@dataclass(frozen=True)
class _Streams:
    """Everything that is coded, as symbols."""

    manifest: Manifest
    masks: list[Symbols]
    scales: Symbols
    values: Symbols
    kernels: list[Quantized]

    @classmethod
    def of(cls, contents: Contents) -> _Streams:
        layout = contents.layout
        kernels = [contents.kernels[k.name] for k in layout.kernels]
        exponents = [exponents_of(q.scale).numpy().ravel() for q in kernels]
        origins = [int(np.rint(np.median(e))) for e in exponents]
        scales = _joined([(e - origin).astype(np.int32) for e, origin in zip(exponents, origins, strict=True)])
        coded = {t.name: v for t in layout.rest if isinstance(v := contents.rest[t.name], CodedTensor)}
        values = _joined([v.symbols for v in coded.values()])
        parts = _parts(kernels, layout.kernels)
        tables, used = share_models([part for kernel in parts for part in kernel])
        indices: list[int | None] = []
        for stream in (scales, values):
            indices.append(len(tables) if stream.size else None)
            tables += [table_of(stream)] if stream.size else []
        manifest = Manifest(
            layout,
            tuple(_codings(kernels, origins, parts, used)),
            {name: (v.step, v.origin) for name, v in coded.items()},
            tuple(tables),
            indices[0],
            indices[1],
            contents.activations,
        )
        return cls(manifest, list(_masks(layout, contents.kept)), scales, values, kernels)

    def parts(self, layout: Layout) -> Iterator[tuple[Symbols, Model]]:
        """All symbols with their models, in the order of the file."""
        manifest = self.manifest
        models = models_of(manifest)
        yield from zip(self.masks, mask_models(layout), strict=True)
        if manifest.scales is not None:
            yield self.scales, models[manifest.scales]
        if manifest.values is not None:
            yield self.values, models[manifest.values]
        for found, kernel, coding in zip(self.kernels, layout.kernels, manifest.kernels, strict=True):
            yield from coded_parts(found, kernel, [models[index] for index in coding.models])


def coded_parts(found: Quantized, kernel: StoredKernel, models: Sequence[Model]) -> Iterator[tuple[Symbols, Model]]:
    """A kernel's codes with their models, in the order of the file."""
    codes = found.codes.numpy()
    if len(models) == 1:
        yield codes.ravel().astype(np.int32), models[0]
    else:
        yield from (
            (part.astype(np.int32), models[at]) for at, part in split(codes, kernel, zero_code(found.choice, found.zero_point))
        )


def zero_code(choice: Choice, zero_point: int | None) -> int:
    """The code that means zero."""
    return len(levels_of(choice)) // 2 if zero_point is None else zero_point


def _parts(kernels: Sequence[Quantized], stored: Sequence[StoredKernel]) -> list[list[Symbols]]:
    """The codes of each kernel: all in one, or by context while a reader may be asked to tell contexts apart."""
    left, parts = MOST_TAPS, []
    for found, kernel in zip(kernels, stored, strict=True):
        own = by_context(found.codes.numpy(), kernel, zero_code(found.choice, found.zero_point), left)
        left -= taps_of(kernel) if len(own) > 1 else 0
        parts.append(own)
    return parts


def _codings(
    kernels: Sequence[Quantized], origins: Sequence[int], parts: Sequence[Sequence[Symbols]], used: Sequence[int]
) -> Iterator[KernelCoding]:
    at = 0
    for found, origin, own in zip(kernels, origins, parts, strict=True):
        yield KernelCoding(found.zero_point, origin, tuple(used[at : at + len(own)]))
        at += len(own)


def _joined(parts: Sequence[Symbols]) -> Symbols:
    return np.concatenate(parts) if parts else np.empty(0, np.int32)


def models_of(manifest: Manifest) -> list[Model]:
    return [model_of_costs(table.first, table.costs) for table in manifest.models]


def mask_models(layout: Layout) -> list[Model]:
    """One model per mask, in the order of the file."""
    couplings = [mask_model(c.coupling.units, c.kept) for c in layout.couplings]
    return couplings + [mask_model(row.full, row.kept) for row in layout.rows]


def _masks(layout: Layout, kept: Kept) -> Iterator[Symbols]:
    lost = list(kept.units.values())  # ascending by coupling, as the layout lists them
    for stored, units in zip(layout.couplings, lost, strict=True):
        yield _mask(stored.coupling.units, units)
    for row in layout.rows:
        yield _mask(row.full, kept.rows[row.kernel])


def _mask(full: int, kept: tuple[int, ...]) -> Symbols:
    mask = np.zeros(full, dtype=np.int32)
    mask[list(kept)] = 1
    return mask


# -- reading ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    """A file, read.

    :param manifest_bytes, raw_bytes: lengths of these sections
    """

    contents: Contents
    manifest: Manifest
    manifest_bytes: int
    raw_bytes: int
    file_bytes: int


def read(source: Path | bytes) -> Contents:
    """Reads a file or its bytes.

    :raises FormatError: whatever is wrong with it
    """
    return open_container(source).contents


def open_container(source: Path | bytes) -> Opened:
    """As `read`, with what the sections take."""
    if not isinstance(source, Path):
        return _open(source)
    try:
        return _open(source.read_bytes())
    except OSError as error:
        raise FormatError(f"{source}: cannot be read: {error.strerror}") from None
    except FormatError as error:
        raise error.inside(source) from error


def _open(data: bytes) -> Opened:
    manifest_bytes, raw_bytes = _check_header(data)
    manifest = parse_manifest(data[HEADER.size : HEADER.size + manifest_bytes], len(data), HEADER.size)
    layout = manifest.layout
    raw_at = HEADER.size + manifest_bytes
    words_at = raw_at + raw_bytes
    raw = _read_raw(layout, data, raw_at, raw_bytes)
    decoder = Decoder(np.frombuffer(data, dtype="<u4", offset=words_at).astype(np.uint32), words_at)
    models = models_of(manifest)
    masks = [decoder.take(model, full) for model, full in zip(mask_models(layout), _mask_lengths(layout), strict=True)]
    kept = _kept(layout, masks, words_at)
    exponents = _take(decoder, models, manifest.scales, sum(k.scales for k in layout.kernels))
    coded = _read_coded(manifest, decoder, models, words_at)
    kernels = _read_kernels(manifest, exponents, decoder, models, words_at)
    decoder.finish()
    rest = {t.name: coded[t.name] if t.name in coded else raw[t.name] for t in layout.rest}
    contents = Contents(layout, kept, kernels, rest, manifest.activations)
    return Opened(contents, manifest, manifest_bytes, raw_bytes, len(data))


def _check_header(data: bytes) -> tuple[int, int]:
    """Lengths of manifest and raw section."""
    if not data.startswith(MAGIC):
        raise FormatError("not a .hirelc file: it does not begin with the magic number", 0)
    if len(data) < HEADER.size:
        raise FormatError(f"the file ends within its header of {HEADER.size} bytes", len(data))
    _, version, flags, manifest_bytes, raw_bytes, words, digest = HEADER.unpack_from(data)
    if version not in READABLE:
        known = " and ".join(map(str, READABLE))
        raise FormatError(f"the file has format {version}; this hirelc reads formats {known}", 8)
    if flags:
        raise FormatError(f"the file has flags {flags:#x}, which format {VERSION} does not know", 10)
    expected = HEADER.size + manifest_bytes + raw_bytes + 4 * words
    if len(data) != expected:
        raise FormatError(f"the header announces {expected} bytes, the file has {len(data)}", 12)
    if _digest(data[:DIGEST_AT], memoryview(data)[HEADER.size :]) != digest:
        raise FormatError("the file is damaged: its digest does not match its contents", DIGEST_AT)
    return manifest_bytes, raw_bytes


def _take(decoder: Decoder, models: list[Model], index: int | None, count: int) -> Symbols:
    return np.empty(0, np.int32) if index is None else decoder.take(models[index], count)


def _mask_lengths(layout: Layout) -> list[int]:
    return [c.coupling.units for c in layout.couplings] + [r.full for r in layout.rows]


def _kept(layout: Layout, masks: list[Symbols], offset: int) -> Kept:
    counts = [c.kept for c in layout.couplings] + [r.kept for r in layout.rows]
    chosen = []
    for mask, count in zip(masks, counts, strict=True):
        kept = np.flatnonzero(mask)
        if len(kept) != count:
            raise FormatError(f"a mask keeps {len(kept)} of {len(mask)}, {count} were announced", offset)
        chosen.append(tuple(int(i) for i in kept))
    couplings = len(layout.couplings)
    rows = {row.kernel: units for row, units in zip(layout.rows, chosen[couplings:], strict=True)}
    return Kept(dict(enumerate(chosen[:couplings])), rows)


def _read_kernels(
    manifest: Manifest, exponents: NDArray[np.int32], decoder: Decoder, models: list[Model], offset: int
) -> dict[str, Quantized]:
    kernels = {}
    at = 0
    for kernel, coding in zip(manifest.layout.kernels, manifest.kernels, strict=True):
        own = exponents[at : at + kernel.scales].astype(np.int64) + coding.scale_origin
        at += kernel.scales
        if own.min() < LEAST_SCALE or own.max() > MOST_SCALE:
            raise FormatError(f"{kernel.name}: a scale beyond the grid", offset)
        codes = _read_codes(kernel, coding, decoder, models)
        if codes is None:
            raise FormatError(f"{kernel.name}: a code beyond the levels of its format", offset)
        rows = torch.from_numpy(codes).view(kernel.shape[kernel.channel_dim], -1)
        scale = numbers(torch.from_numpy(own)).view(-1, 1)
        kernels[kernel.name] = Quantized(kernel.choice, rows, scale, coding.zero_point)
    return kernels


def _read_codes(kernel: StoredKernel, coding: KernelCoding, decoder: Decoder, models: list[Model]) -> NDArray[np.uint8] | None:
    levels = len(levels_of(kernel.choice))
    if len(coding.models) == 1:
        return decoder.take_codes(models[coding.models[0]], kernel.codes, levels)
    zero = zero_code(kernel.choice, coding.zero_point)
    return join(kernel, zero, lambda context, count: decoder.take_codes(models[coding.models[context]], count, levels))


def _read_coded(manifest: Manifest, decoder: Decoder, models: list[Model], offset: int) -> dict[str, CodedTensor]:
    tensors = [t for t in manifest.layout.rest if t.kind == "coded"]
    symbols = _take(decoder, models, manifest.values, sum(t.items for t in tensors))
    coded = {}
    at = 0
    for tensor in tensors:
        found = CodedTensor(*manifest.coded[tensor.name], symbols[at : at + tensor.items])
        if not is_finite(found):
            raise FormatError(f"{tensor.name}: not all of its values are finite numbers", offset)
        coded[tensor.name] = found
        at += tensor.items
    return coded


def _read_raw(layout: Layout, data: bytes, offset: int, length: int) -> dict[str, RawArray]:
    tensors = [(t, np.dtype(t.kind).newbyteorder("<")) for t in layout.rest if t.kind != "coded"]
    needed = sum(t.items * dtype.itemsize for t, dtype in tensors)
    if needed != length:
        raise FormatError(f"the raw section has {length} bytes, its tensors need {needed}", offset)
    raw: dict[str, RawArray] = {}
    for tensor, dtype in tensors:
        array = np.frombuffer(data, dtype=dtype, count=tensor.items, offset=offset)
        raw[tensor.name] = array.astype(tensor.kind).reshape(tensor.shape)
        offset += array.nbytes
    return raw

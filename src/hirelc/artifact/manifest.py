"""Reads the manifest of a file that may come from anyone: every field is checked before it is believed."""

from __future__ import annotations

import json
import zlib
from typing import Any

from hirelc.errors import FormatError, PolicyError
from hirelc.layout import FORMAT_VERSION, Layout, StoredCoupling, StoredKernel, StoredRows, StoredTensor
from hirelc.network.spec import AttributeChange, Coupling, Member
from hirelc.policy import Choice, Granularity, NumberType

INFLATED_LIMIT = 64 * 2**20  # bytes
ITEMS_LIMIT = 2**40  # weights of one tensor
DTYPES = ("float16", "float32", "int64")


def parse_manifest(data: bytes) -> Layout:
    """The layout that a file describes.

    :raises FormatError: it does not inflate, exceeds a limit, or is not a manifest of this version
    """
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(data, INFLATED_LIMIT)
        if not inflater.eof:
            raise FormatError(f"the manifest is cut short or inflates to more than {INFLATED_LIMIT} bytes")
        fields = json.loads(text)
    except (zlib.error, ValueError, RecursionError) as error:
        raise FormatError(f"the manifest cannot be read: {error}") from None
    version = fields.get("format") if isinstance(fields, dict) else None
    if type(version) is not int or version != FORMAT_VERSION:
        raise FormatError(f"the file has format {version!r}; this hirelc reads format {FORMAT_VERSION}")
    try:
        return _layout(fields)
    except (KeyError, TypeError, ValueError, IndexError, PolicyError) as error:
        raise FormatError(f"the manifest breaks its own rules: {error}") from None


def _layout(fields: dict[str, Any]) -> Layout:
    kernels = tuple(_kernel(*row) for row in fields["kernels"])
    rest = tuple(_tensor(*row) for row in fields["rest"])
    names = [k.name for k in kernels] + [t.name for t in rest]
    if len(set(names)) != len(names):
        raise FormatError("the manifest names a tensor twice")
    couplings = tuple(_coupling(names, *row) for row in fields["couplings"])
    rows = tuple(_rows(kernels, *row) for row in fields["rows"])
    return Layout(kernels, rest, couplings, rows)


def _shape(values: Any, least: int = 0) -> tuple[int, ...]:
    shape = tuple(_count(v, least) for v in values)
    total = 1
    for n in shape:
        total *= n
    if total > ITEMS_LIMIT:
        raise FormatError(f"a tensor of shape {shape} is larger than any that this format stores")
    return shape


def _count(value: Any, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= ITEMS_LIMIT:
        raise FormatError(f"the manifest holds {value!r} where a count of at least {least} belongs")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise FormatError(f"the manifest holds {value!r} where a name belongs")
    return value


def _kernel(name: Any, shape: Any, channel_dim: Any, bits: Any, number_type: Any, granularity: Any) -> StoredKernel:
    choice = Choice(bits=bits, number_type=NumberType(number_type), granularity=Granularity(granularity))
    stored = StoredKernel(_text(name), _shape(shape, 1), _count(channel_dim), choice)
    if stored.channel_dim >= len(stored.shape):
        raise FormatError(f"{name}: it has no dimension {channel_dim}")
    return stored


def _tensor(name: Any, shape: Any, dtype: Any) -> StoredTensor:
    if dtype not in DTYPES:
        raise FormatError(f"{name}: unknown type {dtype!r}")
    return StoredTensor(_text(name), _shape(shape), dtype)


def _coupling(names: list[str], units: Any, kept: Any, members: Any, attributes: Any) -> StoredCoupling:
    coupling = Coupling(
        _count(units, 1),
        tuple(
            Member(
                _text(tensor) if isinstance(tensor, str) else names[_count(tensor)],
                _count(dim),
                tuple(_count(s) for s in starts),
                _count(width, 1),
            )
            for tensor, dim, starts, width in members
        ),
        tuple(AttributeChange(_text(module), _text(name), _count(per_unit, 1)) for module, name, per_unit in attributes),
    )
    if _count(kept, 1) > coupling.units:
        raise FormatError(f"a coupling of {units} units cannot keep {kept}")
    return StoredCoupling(coupling, kept)


def _rows(kernels: tuple[StoredKernel, ...], kernel: Any, full: Any, kept: Any) -> StoredRows:
    stored = kernels[_count(kernel)]
    if stored.shape[stored.channel_dim] != _count(kept, 1) or _count(full) < kept:
        raise FormatError(f"{stored.name}: {kept} of {full} rows do not fit its shape {stored.shape}")
    return StoredRows(stored.name, full, kept)

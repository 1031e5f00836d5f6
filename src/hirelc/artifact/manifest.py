"""The manifest: what a file says of itself. Writing is plain; reading believes nothing before it is checked."""

from __future__ import annotations

import json
import math
import reprlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hirelc.artifact.contexts import CONTEXTS, MOST_TAPS, can_have_contexts, taps_of
from hirelc.artifact.entropy import ABSENT, LARGEST_COST, MOST_SYMBOLS
from hirelc.artifact.modelling import Table
from hirelc.compression.activations import ActivationSite
from hirelc.compression.grid import HIGHEST, LEAST_SCALE, LOWEST, MOST_SCALE
from hirelc.errors import FormatError, PolicyError
from hirelc.formats import has_zero_point
from hirelc.layout import Layout, StoredCoupling, StoredKernel, StoredRows, StoredTensor
from hirelc.network.spec import AttributeChange, Coupling, Member
from hirelc.policy import Choice, Granularity, NumberType
from hirelc.version import __version__

ITEMS_LIMIT = 2**40  # of one tensor
INTEGER_LIMIT = 2**31
MOST_DIMENSIONS = 16
MOST_LETTERS = 1000  # of a name
RAW = ("float16", "float32", "int64")
KEYS = ("writer", "kernels", "rest", "couplings", "rows", "models", "scales", "values", "activations")


@dataclass(frozen=True)
class KernelCoding:
    """How one kernel is coded.

    :param scale_origin: what its scale exponents count from
    :param models: index of its model, or of those of its nine contexts
    """

    zero_point: int | None
    scale_origin: int
    models: tuple[int, ...]


@dataclass(frozen=True)
class Manifest:
    """A manifest.

    :param kernels: in the order of the layout
    :param coded: (step, origin) of each coded tensor of the rest, by name
    :param scales: index of the model of the scales' exponents, or None when every kernel has one scale only
    :param values: index of the model of the coded tensors' integers, or None without any
    """

    layout: Layout
    kernels: tuple[KernelCoding, ...]
    coded: Mapping[str, tuple[int, int]]
    models: tuple[Table, ...]
    scales: int | None
    values: int | None
    activations: tuple[ActivationSite, ...] = ()

    def pack(self) -> bytes:
        """The deflated JSON that the file carries."""
        layout = self.layout
        order = {name: i for i, name in enumerate([k.name for k in layout.kernels] + [t.name for t in layout.rest])}
        data = {
            "writer": __version__,
            "kernels": [_kernel_json(k, coding) for k, coding in zip(layout.kernels, self.kernels, strict=True)],
            "rest": [[t.name, list(t.shape), t.kind, *self.coded.get(t.name, ())] for t in layout.rest],
            "couplings": [_coupling_json(c, order) for c in layout.couplings],
            "rows": [[order[r.kernel], r.full, r.kept] for r in layout.rows],
            "models": [[table.first, *table.costs] for table in self.models],
            "scales": self.scales,
            "values": self.values,
            "activations": [[a.module, a.side, a.scale, a.zero_point] for a in self.activations],
        }
        return zlib.compress(json.dumps(data, separators=(",", ":")).encode(), 9)


def _kernel_json(kernel: StoredKernel, coding: KernelCoding) -> list[Any]:
    choice = kernel.choice
    return [
        kernel.name,
        list(kernel.shape),
        kernel.channel_dim,
        choice.bits,
        choice.number_type.value,
        choice.granularity.value,
        coding.zero_point,
        coding.scale_origin,
        coding.models[0] if len(coding.models) == 1 else list(coding.models),
    ]


def _coupling_json(stored: StoredCoupling, order: Mapping[str, int]) -> list[Any]:
    coupling = stored.coupling
    # a tensor that the file leaves out (folded statistics) is named, the others are numbered
    members = [[order.get(m.tensor, m.tensor), m.dim, list(m.starts), m.width] for m in coupling.members]
    return [coupling.units, stored.kept, members, [[a.module, a.attribute, a.per_unit] for a in coupling.attributes]]


def parse_manifest(data: bytes, file_bytes: int, offset: int) -> Manifest:
    """What a file says of itself.

    :param file_bytes: length of the whole file, by which its claims are judged
    :param offset: of the manifest in the file, for messages
    :raises FormatError: it does not inflate, exceeds a limit, or breaks a rule
    """
    inflater = zlib.decompressobj()
    limit = inflated_limit(file_bytes)
    try:
        text = inflater.decompress(data, limit)
        if not inflater.eof:
            raise FormatError(f"the manifest is cut short or inflates to more than {limit} bytes", offset)
        if inflater.unused_data:
            raise FormatError("something follows the manifest's stream", offset + len(data) - len(inflater.unused_data))
        fields = json.loads(text.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    except (zlib.error, ValueError, RecursionError) as error:
        raise FormatError(f"the manifest cannot be read: {error}", offset) from None
    if not isinstance(fields, dict) or set(fields) != set(KEYS):
        raise FormatError(f"the manifest must have exactly the keys {', '.join(KEYS)}", offset)
    try:
        manifest = _manifest(fields)
    except (TypeError, ValueError, IndexError, PolicyError) as error:
        raise FormatError(f"the manifest breaks its own rules: {error}", offset) from None
    except FormatError as error:
        raise FormatError(str(error), offset) from None
    _check_claims(manifest.layout, file_bytes, offset)
    return manifest


def inflated_limit(file_bytes: int) -> int:
    """Bytes that the manifest of a file of this length may inflate to: what they become in memory is bounded too."""
    return min(2**26, 2**17 + 16 * file_bytes)


def items_limit(file_bytes: int) -> int:
    """Items of all tensors and masks of a file of this length: bounds the memory that a reader needs."""
    return 2**24 + 256 * file_bytes


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object names a key twice")
    return fields


def _shown(value: Any) -> str:
    """For messages: whatever a file says, on one line, neither long nor deep."""
    return reprlib.repr(value)


def _check_claims(layout: Layout, file_bytes: int, offset: int) -> None:
    claimed = sum(k.codes for k in layout.kernels) + sum(t.items for t in layout.rest) + layout.mask_bits
    if claimed > items_limit(file_bytes):
        raise FormatError(f"{file_bytes} bytes cannot hold the {claimed} items that the manifest lists", offset)


def _manifest(fields: dict[str, Any]) -> Manifest:
    models = tuple(_table(row) for row in _list(fields["models"]))
    rows = [_kernel(row, len(models)) for row in _list(fields["kernels"])]
    kernels, codings = tuple(kernel for kernel, _ in rows), tuple(coding for _, coding in rows)
    taps = sum(taps_of(kernel) for kernel, coding in rows if len(coding.models) > 1)
    if taps > MOST_TAPS:
        raise FormatError(f"kernels with contexts have {taps} taps together; up to {MOST_TAPS} are possible")
    tensors = [_tensor(row) for row in _list(fields["rest"])]
    rest = tuple(tensor for tensor, _ in tensors)
    coded = {tensor.name: coding for tensor, coding in tensors if coding is not None}
    names = [k.name for k in kernels] + [t.name for t in rest]
    stored = frozenset(names)
    if len(stored) != len(names):
        raise FormatError("the manifest names a tensor twice")
    _text(fields["writer"])
    scattered = tuple(_rows(kernels, row) for row in _list(fields["rows"]))
    if len({row.kernel for row in scattered}) != len(scattered):
        raise FormatError("the manifest scatters a kernel's rows twice")
    sites = tuple(_site(row) for row in _list(fields["activations"]))
    if len({(site.module, site.side) for site in sites}) != len(sites):
        raise FormatError("the manifest quantizes an activation twice")
    layout = Layout(kernels, rest, tuple(_coupling(names, stored, row) for row in _list(fields["couplings"])), scattered)
    needed = bool(kernels), any(t.kind == "coded" and t.items for t in rest)
    scales, values = (_model(fields[key], len(models), use) for key, use in zip(("scales", "values"), needed, strict=True))
    return Manifest(layout, codings, coded, models, scales, values, sites)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise FormatError(f"the manifest holds {_shown(value)} where a list belongs")
    return value


def _shape(values: Any, least: int = 0) -> tuple[int, ...]:
    if len(_list(values)) > MOST_DIMENSIONS:
        raise FormatError(f"a tensor has {len(values)} dimensions; up to {MOST_DIMENSIONS} are possible")
    shape = tuple(_count(v, least) for v in values)
    if math.prod(max(n, 1) for n in shape) > ITEMS_LIMIT:  # an empty tensor's other dimensions, too
        raise FormatError(f"a tensor of shape {shape} is larger than any that this format stores")
    return shape


def _count(value: Any, least: int = 0, most: int = ITEMS_LIMIT) -> int:
    if type(value) is not int or not least <= value <= most:
        raise FormatError(f"the manifest holds {_shown(value)} where a number from {least} to {most} belongs")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MOST_LETTERS or not value.isprintable():
        raise FormatError(f"the manifest holds {_shown(value)} where a name belongs")
    return value


def _model(value: Any, models: int, needed: bool) -> int | None:
    if not needed:
        if value is not None:
            raise FormatError(f"the manifest holds {_shown(value)} where null belongs: nothing is coded with this model")
        return None
    return _count(value, 0, models - 1)


def _table(row: Any) -> Table:
    first, *costs = _list(row)
    if not 0 < len(costs) <= MOST_SYMBOLS:
        raise FormatError(f"a model has {len(costs)} symbols; 1 to {MOST_SYMBOLS} are possible")
    _count(first, -INTEGER_LIMIT, INTEGER_LIMIT - len(costs))  # its last integer is less than 2^31
    for cost in costs:
        if _count(cost, 0, ABSENT) > LARGEST_COST and cost != ABSENT:
            raise FormatError(f"a model has the cost {cost}; 0 to {LARGEST_COST} and {ABSENT} are possible")
    if all(cost == ABSENT for cost in costs):
        raise FormatError("a model gives no symbol any weight")
    return Table(first, tuple(costs))


def _kernel(row: Any, models: int) -> tuple[StoredKernel, KernelCoding]:
    name, shape, channel_dim, bits, number_type, granularity, zero_point, scale_origin, model = _list(row)
    kind, grain = NumberType(_text(number_type)), Granularity(_text(granularity))
    choice = Choice(bits=_count(bits, 2, 8), number_type=kind, granularity=grain)
    stored = StoredKernel(_text(name), _shape(shape, 1), _count(channel_dim), choice)
    if stored.channel_dim >= len(stored.shape):
        raise FormatError(f"{name}: it has no dimension {channel_dim}")
    if has_zero_point(choice):
        _count(zero_point, 0, 2**choice.bits - 1)
    elif zero_point is not None:
        raise FormatError(f"{name}: its format has no zero point")
    used = tuple(_count(index, 0, models - 1) for index in (model if isinstance(model, list) else [model]))
    if isinstance(model, list) and (len(used) != CONTEXTS or not can_have_contexts(stored)):
        raise FormatError(f"{_shown(name)}: {len(used)} models for contexts that it cannot have")
    return stored, KernelCoding(zero_point, _count(scale_origin, LEAST_SCALE, MOST_SCALE), used)


def _tensor(row: Any) -> tuple[StoredTensor, tuple[int, int] | None]:
    name, shape, kind, *coding = _list(row)
    tensor = StoredTensor(_text(name), _shape(shape), kind)
    if kind == "coded":
        step, origin = coding
        return tensor, (_count(step, LOWEST, HIGHEST), _count(origin, -INTEGER_LIMIT, INTEGER_LIMIT))
    if kind not in RAW or coding:
        raise FormatError(f"{name}: unknown kind {_shown(kind)}")
    return tensor, None


def _coupling(names: Sequence[str], stored: frozenset[str], row: Any) -> StoredCoupling:
    units, kept, members, attributes = _list(row)
    coupling = Coupling(
        _count(units, 1),
        tuple(
            Member(
                _unstored(tensor, stored) if isinstance(tensor, str) else names[_count(tensor, 0, len(names) - 1)],
                _count(dim),
                tuple(_count(s) for s in _list(starts)),
                _count(width, 1),
            )
            for tensor, dim, starts, width in _list(members)
        ),
        tuple(AttributeChange(_text(module), _text(name), _count(per, 1)) for module, name, per in _list(attributes)),
    )
    if _count(kept, 1) > coupling.units:
        raise FormatError(f"a coupling of {units} units cannot keep {kept}")
    return StoredCoupling(coupling, kept)


def _unstored(name: str, stored: frozenset[str]) -> str:
    if name in stored:
        raise FormatError(f"a coupling names {name}, which the file stores and has a number")
    return _text(name)


def _rows(kernels: tuple[StoredKernel, ...], row: Any) -> StoredRows:
    kernel, full, kept = _list(row)
    stored = kernels[_count(kernel, 0, len(kernels) - 1)]
    if stored.shape[stored.channel_dim] != _count(kept, 1) or _count(full) < kept:
        raise FormatError(f"{stored.name}: {kept} of {full} rows do not fit its shape {stored.shape}")
    return StoredRows(stored.name, full, kept)


def _site(row: Any) -> ActivationSite:
    module, side, scale, zero_point = _list(row)
    if _text(side) not in ("input", "output"):
        raise FormatError(f"{_text(module)}: an activation has no side {_shown(side)}")
    if type(scale) not in (int, float) or not 1e-30 < scale < 1e30:
        raise FormatError(f"{_text(module)}: {_shown(scale)} is no scale of activations")
    return ActivationSite(_text(module), side, float(scale), _count(zero_point, 0, 255))

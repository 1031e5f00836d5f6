"""Tensors and a record in one file: safetensors, with a checksum over both.

safetensors notices a file that is cut short, but not a bit that flipped; what a run goes on from must be right to the bit.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from hirelc.errors import RunError

FIELD = "hirelc"  # of safetensors' metadata: {"crc32": ..., "record": ...} as JSON


def pack_tensors(tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> bytes:
    """The bytes of a safetensors file. The same content gives the same bytes.

    :param tensors: on any device; copied
    :param record: what JSON can hold; numbers come back as they were
    """
    data = safetensors.torch.save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()})
    header, values = _parts(data)
    field = {"crc32": _checksum(header, record, values), "record": dict(record)}
    text = json.dumps({"__metadata__": {FIELD: json.dumps(field)}, **header}).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, values))


def unpack_tensors(data: bytes, where: object) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and record of such a file.

    :param where: the file's name, for the error
    :raises RunError: it is damaged, or none of hirelc's
    """
    try:
        tensors = safetensors.torch.load(data)
        header, values = _parts(data)
        field = json.loads(header.pop("__metadata__")[FIELD])
        record, checksum = dict(field["record"]), field["crc32"]
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{where} is damaged ({type(error).__name__})") from error
    if _checksum(header, record, values) != checksum:
        raise RunError(f"{where} is damaged (its checksum differs)")
    return tensors, record


def _parts(data: bytes) -> tuple[dict[str, Any], memoryview]:
    """The header, and the bytes of all tensors, not copied."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), memoryview(data)[end:]


def _checksum(header: Mapping[str, Any], record: Mapping[str, Any], values: memoryview) -> int:
    return zlib.crc32(values, zlib.crc32(json.dumps([header, record]).encode()))


def copy_into(targets: Mapping[str, Tensor], sources: Mapping[str, Tensor]) -> None:
    """Writes values into tensors that exist; their place, layout and device stay.

    :raises RunError: names or shapes are not the same
    """
    wrong = [
        name
        for name in {*targets, *sources}
        if name not in targets or name not in sources or targets[name].shape != sources[name].shape
    ]
    if wrong:
        raise RunError(f"the saved state is of another network: {min(wrong)} differs")
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(sources[name])

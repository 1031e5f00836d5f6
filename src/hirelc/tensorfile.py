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
from safetensors import SafetensorError, deserialize
from torch import Tensor

from hirelc.errors import RunError

FIELD = "hirelc"  # of safetensors' metadata: {"crc32": ..., "record": ...} as JSON


def pack_tensors(tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> bytes:
    """The bytes of a safetensors file. The same content gives the same bytes.

    :param tensors: on any device; copied
    :param record: what JSON can hold; numbers come back as they were
    """
    ready = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    data = safetensors.torch.save(ready)
    field = {"crc32": _checksum(data, record), "record": dict(record)}
    return safetensors.torch.save(ready, {FIELD: json.dumps(field)})


def unpack_tensors(data: bytes, where: object) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and record of such a file.

    :param where: the file's name, for the error
    :raises RunError: it is damaged, or none of hirelc's
    """
    try:
        tensors = safetensors.torch.load(data)
        field = json.loads(_metadata(data)[FIELD])
        record, checksum = dict(field["record"]), field["crc32"]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{where} is damaged ({type(error).__name__})") from error
    if _checksum(data, record) != checksum:
        raise RunError(f"{where} is damaged (its checksum differs)")
    return tensors, record


def _metadata(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    return dict(json.loads(data[8 : 8 + length]).get("__metadata__", {}))


def _checksum(data: bytes, record: Mapping[str, Any]) -> int:
    """Over every tensor's name, kind, shape and bytes, and the record."""
    total = zlib.crc32(json.dumps(dict(record)).encode())
    for name, tensor in sorted(deserialize(data)):  # type: ignore[no-untyped-call]
        head = json.dumps([name, str(tensor["dtype"]), list(tensor["shape"])])
        total = zlib.crc32(tensor["data"], zlib.crc32(head.encode(), total))
    return total


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

"""The idx file format of MNIST and its kin: big-endian header, then unsigned bytes. Plain or gzipped.

Header: two zero bytes, the type (0x08 = unsigned byte), the number of dimensions, then each dimension in four bytes.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from hirelc.errors import DataError

UNSIGNED_BYTE = 0x08
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def find_idx_files(folder: Path) -> list[Path]:
    """The four files of a data set, each plain or with .gz: train images and labels, test images and labels.

    :raises DataError: no such folder, or one of the files is not in it
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder: give one that holds the four idx files")
    found = []
    for name in IDX_FILES:
        # Some mirrors write train-images.idx3-ubyte.
        names = [spelled + suffix for spelled in (name, name.replace("-idx", ".idx")) for suffix in ("", ".gz")]
        path = next((folder / each for each in names if (folder / each).is_file()), None)
        if path is None:
            raise DataError(f"{folder}: {name} (or {name}.gz) is missing: put the four idx files there: {', '.join(IDX_FILES)}")
        found.append(path)
    return found


def read_idx(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The array in an idx file: images (count, height, width) or labels (count,), as the file's name says.

    :raises DataError: not an idx file of bytes, another number of dimensions, too short or too long
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read or unpacked ({error}): get the file again") from error
    dimensions = 1 if "labels" in path.name else 3
    expected = bytes((0, 0, UNSIGNED_BYTE, dimensions))
    if data[:4] != expected:
        raise DataError(
            f"{path}: starts with {data[:4].hex() or 'nothing'}, not {expected.hex()}: not an idx file of this kind"
        )
    header = 4 + 4 * dimensions
    if len(data) < header:
        raise DataError(f"{path}: ends inside its header: the file is truncated, get it again")
    shape = struct.unpack(f">{dimensions}I", data[4:header])
    if len(data) - header != math.prod(shape):
        raise DataError(
            f"{path}: holds {len(data) - header} bytes where {math.prod(shape)} are announced: "
            "the file is truncated or damaged, get it again"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def write_idx(path: Path, array: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    """Writes unsigned bytes as an idx file, gzipped when the name ends in .gz."""
    data = struct.pack(f">BBBB{array.ndim}I", 0, 0, UNSIGNED_BYTE, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)

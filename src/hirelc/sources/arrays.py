"""An .npz archive of arrays: x and y, and if there are any x_val, y_val, x_test, y_test. x alone needs no labels."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from hirelc.data_checks import checked_pair
from hirelc.errors import DataError
from hirelc.sources.base import Request, Splits, Table, carve, in_memory

SUFFIXES = (("train", ""), ("validation", "_val"), ("test", "_test"))
Array = np.ndarray[Any, Any]


def npz(rest: str, request: Request) -> Splits:
    """The source `npz:FILE`."""
    path = Path(rest).expanduser()
    return in_memory(npz_tables(read_npz(path), rest, request), request, path.name, rest, None, None, None)


def read_npz(path: Path) -> dict[str, Array]:
    """:raises DataError: no such file, or not an archive of plain arrays"""
    if not path.is_file():
        raise DataError(f"{path}: no such file: give a .npz file with the arrays x and y")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise DataError(
            f"{path}: not a readable .npz of plain arrays ({error}): write it with numpy.savez(path, x=x, y=y)"
        ) from error


def npz_tables(arrays: dict[str, Array], where: str, request: Request) -> dict[str, Table]:
    """The splits in an archive; those that it lacks are carved out of x, y, a tenth each, by the seed."""
    tables: dict[str, Table] = {}
    for name, suffix in SUFFIXES:
        keys = [key + suffix for key in "xy"]
        x, y = (arrays.get(key) for key in keys)
        if x is not None and y is None and request.targets == "tokens":
            y = x  # what a language model is to say are the tokens themselves
        if x is None and y is None and suffix:
            continue
        needed = keys if request.labelled else keys[:1]
        missing = " and ".join(key for key in needed if key not in arrays and not (key == keys[1] and y is not None))
        if x is None or missing:
            raise DataError(
                f"{where}: the array {missing} is missing: save x and y, and if you have them x_test and y_test"
                + ("; --task distill needs no y" if request.labelled and x is not None else "")
            )
        place = where + (f" ({keys[0]})" if suffix else "")
        tables[name] = checked_pair(x, y if request.labelled else None, place, None, request.targets)
    return carve(tables, where, request.seed)

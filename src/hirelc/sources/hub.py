"""Data sets of Hugging Face: `hf-dataset:NAME_OR_DIR[:input,label]`, a folder written by save_to_disk or a name on the hub.

The input column holds images, texts, or arrays of one shape. Without column names the first that is called as usual is
taken. Splits called train, validation (or val, valid, dev) and test are used; a tenth is carved out for those missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hirelc.data_checks import checked_pair
from hirelc.errors import DataError
from hirelc.sources.base import Request, Splits, Table, carve, in_memory
from hirelc.sources.images import from_images
from hirelc.sources.texts import text_tables

INPUTS = ("image", "img", "pixel_values", "text", "sentence", "x", "input", "inputs", "features", "audio")
LABELS = ("label", "labels", "y", "target", "class")
SPLITS = {"train": ("train",), "validation": ("validation", "val", "valid", "dev"), "test": ("test",)}


def hf_dataset(rest: str, request: Request) -> Splits:
    """The source `hf-dataset:NAME_OR_DIR[:input,label]`."""
    where, columns = _parts(rest)
    found = _splits(_loaded(where), where)
    features = found["train"].features
    x_name, y_name = _columns(features, columns, request, where)
    names = getattr(features[y_name], "names", None) if y_name else None
    kind, title = type(features[x_name]).__name__, Path(where).name
    if kind == "Image":
        return _images(found, x_name, y_name, names, request, title, where)
    if getattr(features[x_name], "dtype", None) in ("string", "large_string"):
        return _texts(found, x_name, y_name, names, request, title, where)
    tables = {split: _arrays(data, x_name, y_name, request, f"{where}, {split}") for split, data in found.items()}
    tables = carve(tables, where, request.seed, by_class=request.targets == "classes")
    return in_memory(tables, request, title, where, len(names) if names else None, None, None)


def _parts(rest: str) -> tuple[str, list[str]]:
    if not rest:
        raise DataError("hf-dataset: give hf-dataset:NAME_OR_DIR, or hf-dataset:NAME_OR_DIR:input,label")
    where, _, columns = rest.rpartition(":")
    if not where or "/" in columns:
        return rest, []
    return where, [name.strip() for name in columns.split(",") if name.strip()]


def _loaded(where: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError("data sets of Hugging Face need the datasets package: pip install 'hirelc[hf]'") from error
    folder = Path(where).expanduser()
    try:
        if folder.is_dir():
            return datasets.load_from_disk(str(folder))
        if where.startswith((".", "/", "~")):
            raise DataError(f"hf-dataset:{where}: no such folder: give one written by save_to_disk")
        return datasets.load_dataset(where)
    except (OSError, ValueError, RuntimeError, IndexError, datasets.exceptions.DatasetsError) as error:
        # a set without rows has no files, which is an IndexError
        reason = "it has no rows" if isinstance(error, IndexError) else " ".join(str(error).split())[:300]
        raise DataError(f"hf-dataset:{where}: cannot be loaded: {reason}: give a folder written by save_to_disk") from error


def _splits(loaded: Any, where: str) -> dict[str, Any]:
    if not hasattr(loaded, "items"):
        return {"train": loaded}
    found = {}
    for split, spellings in SPLITS.items():
        name = next((name for name in spellings if name in loaded), None)
        if name is not None:
            found[split] = loaded[name]
    if "train" not in found:
        raise DataError(f"hf-dataset:{where}: there is no split train (there is: {', '.join(loaded)}): name one of them so")
    return found


def _columns(features: Any, wanted: list[str], request: Request, where: str) -> tuple[str, str | None]:
    if len(wanted) > 2 or any(name not in features for name in wanted):
        raise DataError(
            f"hf-dataset:{where}: {','.join(wanted)}: name the columns of input and label among {', '.join(features)}"
        )
    x = wanted[0] if wanted else next((name for name in INPUTS if name in features), None)
    if x is None:
        raise DataError(f"hf-dataset:{where}: which column is the input? add :input,label with two of {', '.join(features)}")
    if not request.labelled or (request.targets == "tokens" and len(wanted) < 2):
        return x, None
    y = wanted[1] if len(wanted) == 2 else next((name for name in LABELS if name in features and name != x), None)
    if y is None:
        raise DataError(f"hf-dataset:{where}: which column is the label? add :{x},label with one of {', '.join(features)}")
    return x, y


def _images(
    found: dict[str, Any], x: str, y: str | None, names: list[str] | None, request: Request, title: str, where: str
) -> Splits:
    import datasets

    if request.targets not in ("classes", "none"):
        raise DataError(f"hf-dataset:{where}: images have one class each, but the task wants {request.targets}")
    files: dict[str, list[tuple[Any, int]]] = {}
    for split, data in found.items():
        raw = data.cast_column(x, datasets.Image(decode=False))[x]
        empty = next((row for row, entry in enumerate(raw) if not entry or not (entry["bytes"] or entry["path"])), None)
        if empty is not None:
            raise DataError(f"{where}, {split}: row {empty} has no image: leave such rows out with filter()")
        labels = [0] * len(raw) if y is None else _whole(data[y], f"{where}, {split}")
        files[split] = [(entry["bytes"] or entry["path"], label) for entry, label in zip(raw, labels, strict=True)]
    highest = max(label for entries in files.values() for _, label in entries)
    known = [] if y is None else names or [str(number) for number in range(highest + 1)]
    return from_images(files, known, request, title, where)


def _whole(labels: Any, where: str) -> list[int]:
    values = list(labels)
    if not all(isinstance(value, int) for value in values):
        raise DataError(f"{where}: labels must be whole numbers from 0: cast them with class_encode_column")
    return values


def _texts(
    found: dict[str, Any], x: str, y: str | None, names: list[str] | None, request: Request, title: str, where: str
) -> Splits:
    parts = {split: (list(data[x]), None if y is None else list(data[y])) for split, data in found.items()}
    for split, (texts, labels) in parts.items():
        if any(not text for text in texts) or any(label is None for label in labels or ()):
            raise DataError(f"{where}, {split}: a text or label is missing: leave such rows out with filter()")
    tokenized = text_tables(parts, request, where)
    tables = carve(tokenized.tables, where, request.seed, by_class=request.targets == "classes")
    classes = len(names) if names and request.targets == "classes" else tokenized.classes
    return in_memory(tables, request, f"{title} ({tokenized.words})", where, classes, None, None, tokenized.notes)


def _arrays(data: Any, x: str, y: str | None, request: Request, where: str) -> Table:
    data = data.with_format("numpy")
    try:
        inputs = np.stack(list(data[x]))
        targets = None if y is None else np.stack(list(data[y]))
    except ValueError as error:
        raise DataError(f"{where}: rows differ in shape ({error}): bring them to one shape with map()") from error
    if targets is None and request.targets == "tokens":
        targets = inputs
    return checked_pair(inputs, targets, where, None, request.targets)

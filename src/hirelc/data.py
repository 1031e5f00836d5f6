"""Data sets by name, split three ways: train, search-validation, and a sealed test split.

    splits = load_data("fashion-mnist:/data/fashion", batch_size=64)
    for inputs, targets in splits.train.epoch(seed=0, training=True): ...

A data source is a function registered under a name: `@source("name")`, from the text behind the colon and a
`Request` to `Splits`. Whatever is wrong with the data is one DataError that names the file and the fix.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset

from hirelc.batches import (
    Batches,
    DatasetBatches,
    LoaderBatches,
    Sealed,
    TensorBatches,
    as_batches,
    first_samples,
    map_inputs,
)
from hirelc.config import TrainConfig
from hirelc.data_checks import check_inputs, check_labels, checked_pair, look_through
from hirelc.errors import DataError, HirelcError
from hirelc.idx import find_idx_files, read_idx
from hirelc.sources.arrays import npz, npz_tables, read_npz
from hirelc.sources.base import Request, Source, Splits, in_memory, pixel_statistics
from hirelc.sources.hub import hf_dataset
from hirelc.sources.images import imagefolder
from hirelc.sources.texts import csv_texts

__all__ = [
    "Batches",
    "DatasetBatches",
    "LoaderBatches",
    "Request",
    "Sealed",
    "Splits",
    "TensorBatches",
    "as_batches",
    "check_inputs",
    "check_labels",
    "find_fashion_mnist",
    "first_samples",
    "load_data",
    "make_splits",
    "map_inputs",
    "source",
]

FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_PIXELS = (0.2860, 0.3530)
# What tells Fashion-MNIST from the other data sets in idx files: its first labels.
FASHION_MNIST_LABELS = (9, 0, 0, 3, 0, 2, 7, 2, 5, 5, 0, 9, 5, 5, 7, 9, 1, 0, 6, 4)
CHECKED_SAMPLES = 4096


SOURCES: dict[str, Source] = {"npz": npz, "imagefolder": imagefolder, "csv": csv_texts, "hf-dataset": hf_dataset}


def source(name: str) -> Callable[[Source], Source]:
    """Registers a data source: `load_data("name:rest")` calls it with "rest" and the request."""

    def register(function: Source) -> Source:
        SOURCES[name] = function
        return function

    return register


def load_data(
    spec: str,
    *,
    batch_size: int = TrainConfig.batch_size,
    train_limit: int | None = None,
    augment: str | None = "auto",
    seed: int = 0,
    **wishes: Any,
) -> Splits:
    """The data set that `spec` names, checked and split.

    >>> splits = hirelc.data.load_data("demo", train_limit=100)
    >>> splits.train.samples, splits.validation.samples, splits.test.samples, splits.classes
    (100, 1000, 2000, 10)

    :param spec: "demo", "fashion-mnist", "fashion-mnist:DIR", "idx:DIR", "npz:FILE", "imagefolder:DIR",
        "csv:FILE:text,label", "hf-dataset:NAME_OR_DIR", "python:module:function", a folder with four idx files, or a
        .npz file
    :param train_limit: use only the first so many training samples
    :param augment: "auto" (what suits the source), None, "shift" or "shift-flip"
    :param seed: decides the split where the data set brings none
    :param wishes: the other fields of `Request`: targets, image, normalise, tokenizer, max_tokens, classes
    :raises DataError: missing, damaged or unusable data
    """
    request = Request(batch_size, train_limit, augment, seed, **wishes)
    name, _, rest = spec.partition(":")
    if name in SOURCES:
        return SOURCES[name](rest, request)
    path = Path(spec).expanduser()
    if path.is_dir():
        return SOURCES["idx"](spec, request)
    if path.is_file() and path.suffix == ".npz":
        return SOURCES["npz"](spec, request)
    known = "a folder of four idx files, a .npz file, " + ", ".join(sorted(SOURCES))
    if path.is_file():
        raise DataError(f"{spec}: this kind of file cannot be read: give {known}")
    raise DataError(f"{spec}: no such file, folder or data set: give {known}")


def make_splits(
    train: object, validation: object, test: Any = None, *, request: Request | None = None, description: str = "given data"
) -> Splits:
    """Splits of whatever holds samples (see `as_batches`), after a look at each: all of validation and the start of train.

    :raises DataError: empty, NaN or infinite inputs, labels that are no class numbers
    """
    request = request or Request()
    if request.train_limit is not None:
        train = _limited(train, request.train_limit)
    parts = {
        "train": as_batches(train, request.batch_size, request.labelled),
        "validation": as_batches(validation, request.batch_size, request.labelled),
    }
    classes = 0
    for name, batches in parts.items():
        limit = CHECKED_SAMPLES if name == "train" else None
        classes = max(classes, look_through(batches, f"{description}, {name} split", limit, request.targets).classes)
    sealed = test
    if test is not None and not isinstance(test, Sealed):
        sealed = Sealed(as_batches(test, request.batch_size, request.labelled))
    return Splits(parts["train"], parts["validation"], sealed, description, classes)


def find_fashion_mnist() -> Path | None:
    """The folder of Debian's dataset-fashion-mnist, when it is installed."""
    return FASHION_MNIST_FOLDER if (FASHION_MNIST_FOLDER / "train-images-idx3-ubyte.gz").is_file() else None


@source("fashion-mnist")
def _fashion_mnist(rest: str, request: Request) -> Splits:
    folder = Path(rest).expanduser() if rest else find_fashion_mnist()
    if folder is None:
        raise DataError(
            "Fashion-MNIST is not installed: `apt-get install dataset-fashion-mnist`, or get the four idx files from "
            "https://github.com/zalandoresearch/fashion-mnist and give fashion-mnist:DIR, or use the bundled part: demo"
        )
    return _idx_splits(folder, request, is_fashion=True)


@source("idx")
def _idx(rest: str, request: Request) -> Splits:
    return _idx_splits(Path(rest).expanduser(), request, is_fashion=False)


def _idx_splits(folder: Path, request: Request, is_fashion: bool) -> Splits:
    files = find_idx_files(folder)
    x, y = checked_pair(read_idx(files[0]), read_idx(files[1]), str(files[0]), None)
    test_x, test_y = checked_pair(read_idx(files[2]), read_idx(files[3]), str(files[2]), None)
    is_fashion = is_fashion or tuple(y[: len(FASHION_MNIST_LABELS)].tolist()) == FASHION_MNIST_LABELS
    classes = 10 if is_fashion else int(y.max()) + 1
    check_labels(y, classes, str(files[1]))
    check_labels(test_y, classes, str(files[3]))
    pixels = FASHION_MNIST_PIXELS if is_fashion else pixel_statistics(x)
    # Of Fashion-MNIST's 60,000 training images, the last 5,000 are the search-validation split.
    held_out = max(1, len(x) // 12)
    if len(x) < 2:
        raise DataError(f"{files[0]}: one image cannot be split into train and validation: give at least two")
    tables: dict[str, tuple[Any, Tensor]] = {
        "train": (x[:-held_out], y[:-held_out]),
        "validation": (x[-held_out:], y[-held_out:]),
        "test": (test_x, test_y),
    }
    title = "Fashion-MNIST" if is_fashion else "idx images"
    return in_memory(tables, request, title, str(folder), classes, "shift-flip" if is_fashion else "shift", pixels)


@source("demo")
def _demo(rest: str, request: Request) -> Splits:
    if rest:
        raise DataError(f"demo:{rest}: the bundled data set takes no argument: use demo")
    with resources.as_file(resources.files("hirelc") / "demo_data" / "fashion_mnist_part.npz") as path:
        arrays = read_npz(path)
    tables = npz_tables(arrays, "demo", request)
    return in_memory(tables, request, "Fashion-MNIST (bundled part)", "demo", 10, "shift-flip", FASHION_MNIST_PIXELS)


@source("python")
def _python(rest: str, request: Request) -> Splits:
    module_name, _, function_name = rest.partition(":")
    if not module_name or not function_name:
        raise DataError(f"python:{rest}: give python:module:function, a function returning (train, validation[, test])")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except ImportError as error:
        raise DataError(f"python:{rest}: cannot import {module_name}: {error}") from error
    except AttributeError as error:
        raise DataError(f"python:{rest}: {module_name} has no {function_name}: name a function of that module") from error
    if not callable(function):
        raise DataError(f"python:{rest}: {function_name} is not a function: name one returning (train, validation[, test])")
    try:
        parts = function()
    except HirelcError:
        raise
    except Exception as error:  # the user's own code runs here: it may raise anything
        words = " ".join(str(error).split())
        raise DataError(
            f"python:{rest}: the function fails: {type(error).__name__}: {words} (--verbose shows where)"
        ) from error
    if not isinstance(parts, tuple | list) or len(parts) not in (2, 3):
        raise DataError(f"python:{rest}: the function must return (train, validation) or (train, validation, test)")
    return make_splits(*parts, request=request, description=rest)


def _limited(data: object, limit: int) -> object:
    """The first `limit` samples of a training set."""
    if isinstance(data, TensorBatches):
        x = map_inputs(data.x, lambda tensor: tensor[:limit])
        return TensorBatches(x, data.y[:limit], data.batch_size, data.augment, data.normalise)
    if isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(part, Tensor | np.ndarray) for part in data):
        return data[0][:limit], data[1][:limit]
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset) and hasattr(data, "__len__"):
        return Subset(data, range(min(limit, len(data))))
    raise DataError(f"train_limit does not work with a {type(data).__name__}: limit it before you hand it over")

"""What must hold of data before anything is trained on it: one DataError per fault, with the file and the fix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hirelc.batches import Batch, Batches, Inputs, TensorBatches, map_inputs, no_targets
from hirelc.errors import DataError
from hirelc.metrics import IGNORED


def check_labels(labels: Tensor, classes: int | None, where: str) -> Tensor:
    """Class numbers as int64, or a DataError that says what is wrong with them.

    :param labels: (samples,) of any dtype
    :param classes: labels must lie below this; None: any number of classes
    :param where: file or split, for the message
    """
    if labels.dim() != 1:
        raise DataError(f"{where}: labels have shape {tuple(labels.shape)}: give one class number for each sample")
    if labels.is_complex() or (labels.is_floating_point() and not bool((labels == labels.floor()).all())):
        raise DataError(f"{where}: labels are not whole numbers: give class numbers 0, 1, 2, ...")
    labels = labels.long()
    if len(labels) and int(labels.min()) < 0:
        raise DataError(f"{where}: label {int(labels.min())} is negative: number the classes from 0")
    if classes is not None and len(labels) and int(labels.max()) >= classes:
        raise DataError(f"{where}: label {int(labels.max())} is out of range: there are {classes} classes, 0 to {classes - 1}")
    return labels


def check_classes(classes: int, outputs: int, where: str) -> None:
    """:raises DataError: labels 0 to classes - 1 do not fit a network with that many outputs"""
    if classes > outputs:
        raise DataError(
            f"{where}: labels run up to {classes - 1}, but the network has {outputs} outputs "
            f"(labels 0 to {outputs - 1}): give data or a network with the same classes"
        )


def check_inputs(inputs: Inputs, where: str) -> None:
    """:raises DataError: NaN or infinite values"""

    def check(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad = (~torch.isfinite(tensor.reshape(len(tensor), -1))).any(1).nonzero().flatten()
            raise DataError(
                f"{where}: NaN or infinite pixels in {len(bad)} samples, the first is sample {int(bad[0])}: "
                "repair them or leave them out"
            )
        return tensor

    map_inputs(inputs, check)


def check_positions(labels: Tensor, classes: int | None, where: str) -> Tensor:
    """Class numbers for each position of a sequence or map as int64; IGNORED where nothing is asked.

    :raises DataError: as `check_labels`, or nothing is asked at all
    """
    flat = labels.flatten()
    asked = flat[flat != IGNORED]
    if labels.numel() and not asked.numel():
        raise DataError(f"{where}: every label is {IGNORED}, which means that nothing is asked: give labels")
    check_labels(asked, classes, where)
    return labels.long()


def check_targets(targets: Tensor, kind: str, classes: int | None, where: str) -> Tensor:
    """Targets of the kind that a task wants (`Task.targets`), in the type that its loss takes.

    :raises DataError: they are of another kind
    """
    if kind == "classes":
        return check_labels(targets, classes, where)
    if kind in ("positions", "tokens"):
        return check_positions(targets, classes, where)
    if kind == "values":
        if targets.dim() > 1 and targets.shape[1] == 0:
            raise DataError(f"{where}: there are no targets: give one for each sample, or use --task distill")
        values = targets.float()
        if not bool(torch.isfinite(values).all()):
            raise DataError(f"{where}: NaN or infinite targets: repair them or leave those samples out")
        return values
    return targets


def checked_pair(
    x: np.ndarray[Any, Any], y: np.ndarray[Any, Any] | None, where: str, classes: int | None, kind: str = "classes"
) -> tuple[Tensor, Tensor]:
    """Checked tensors of one split: inputs as the network takes them, targets as the task does (none for None)."""
    if x.ndim == 0 or (y is not None and y.ndim == 0):
        raise DataError(f"{where}: {'x' if x.ndim == 0 else 'y'} is a single number: store one entry for each sample")
    if len(x) == 0:
        raise DataError(f"{where}: the data set is empty: give at least one sample")
    if y is not None and len(x) != len(y):
        raise DataError(f"{where}: {len(x)} images but {len(y)} labels: give one label for each image")
    if not np.issubdtype(x.dtype, np.number) or np.iscomplexobj(x) or (y is not None and not np.issubdtype(y.dtype, np.number)):
        raise DataError(f"{where}: x is {x.dtype} and y is {None if y is None else y.dtype}: store real numbers")
    wanted = {np.dtype(np.float64): np.float32, np.dtype(np.float16): np.float32}
    integers = np.int64 if np.issubdtype(x.dtype, np.integer) and x.dtype != np.uint8 else x.dtype
    inputs = torch.from_numpy(np.array(x, dtype=wanted.get(x.dtype, integers)))
    if inputs.dtype == torch.uint8 and inputs.dim() == 3:
        inputs = inputs.unsqueeze(1)  # grey images get their channel
    targets = no_targets(len(x))
    if y is not None:
        numbers = torch.from_numpy(np.array(y, dtype=np.float64 if y.dtype.kind == "f" else np.int64))
        targets = check_targets(numbers, kind, classes, where)
    check_inputs(inputs, where)
    return inputs, targets


@dataclass(frozen=True)
class Seen:
    """What a look through a split found.

    :param classes: the highest label + 1; 0 where labels are no classes
    :param present: the labels that occur
    :param samples: looked at
    :param whole: whether these are all
    """

    classes: int
    present: frozenset[int]
    samples: int
    whole: bool


def look_through(batches: Batches, where: str, limit: int | None, kind: str = "classes") -> Seen:
    """Checks up to `limit` samples (all when None).

    :param kind: of targets, see `Task.targets`
    :raises DataError: no sample, NaN or infinite inputs, targets of another kind
    """
    seen, present = 0, set[int]()
    for inputs, targets in _parts(batches):
        check_inputs(inputs, where)
        if kind in ("classes", "positions", "tokens") and targets.numel():
            found = check_targets(targets.flatten() if kind == "classes" else targets, kind, None, where)
            present.update(torch.unique(found).tolist())
        elif kind == "values":
            check_targets(targets, kind, None, where)
        seen += len(targets)
        if limit is not None and seen >= limit:
            break
    if seen == 0:
        raise DataError(
            f"{where}: the data set is empty: give at least one sample (a loader that drops its last batch needs one)"
        )
    present.discard(IGNORED)
    if kind in ("classes", "positions", "tokens") and not present:
        raise DataError(f"{where}: there are no labels: give them, or use --task distill, which needs none")
    return Seen(max(present, default=-1) + 1, frozenset(present), seen, limit is None or seen < limit)


def _parts(batches: Batches) -> Iterable[Batch]:
    """Samples in memory at once, so that the first faulty one can be named by its number; others by the batch."""
    if isinstance(batches, TensorBatches):
        return [(batches.x, batches.y)]
    return batches.epoch(0, training=False)


def compare_splits(train: Seen, validation: Seen, kind: str) -> list[str]:
    """What is odd about two splits, in words for people.

    :raises DataError: a split holds one class only, so that nothing can be told apart
    """
    if kind != "classes":
        return []
    for seen, name in ((train, "fine-tuning"), (validation, "search-validation")):
        if len(seen.present) == 1 and seen.whole:
            (only,) = seen.present
            raise DataError(f"the {name} split holds one class only (label {only}): give samples of at least two")
    notes = []
    for here, there, name in ((train, validation, "fine-tuning"), (validation, train, "search-validation")):
        missing = sorted(there.present - here.present)
        if missing and here.whole:
            shown = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
            notes.append(f"{len(missing)} classes do not occur in the {name} split: {shown}")
    return notes

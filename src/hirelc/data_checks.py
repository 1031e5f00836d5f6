"""What must hold of data before anything is trained on it: one DataError per fault, with the file and the fix."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hirelc.batches import Batches, Inputs, TensorBatches, map_inputs
from hirelc.errors import DataError


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


def checked_pair(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], where: str, classes: int | None) -> tuple[Tensor, Tensor]:
    """Checked tensors of one split: inputs as the network takes them, labels as int64."""
    if len(x) == 0:
        raise DataError(f"{where}: the data set is empty: give at least one sample")
    if len(x) != len(y):
        raise DataError(f"{where}: {len(x)} images but {len(y)} labels: give one label for each image")
    if not (np.issubdtype(x.dtype, np.number) and np.issubdtype(y.dtype, np.number)):
        raise DataError(f"{where}: x is {x.dtype} and y is {y.dtype}: store numbers")
    wanted = {np.dtype(np.float64): np.float32, np.dtype(np.float16): np.float32}
    integers = np.int64 if np.issubdtype(x.dtype, np.integer) and x.dtype != np.uint8 else x.dtype
    inputs = torch.from_numpy(np.array(x, dtype=wanted.get(x.dtype, integers)))
    if inputs.dtype == torch.uint8 and inputs.dim() == 3:
        inputs = inputs.unsqueeze(1)  # grey images get their channel
    labels = check_labels(torch.from_numpy(np.array(y, dtype=np.float64 if y.dtype.kind == "f" else np.int64)), classes, where)
    check_inputs(inputs, where)
    return inputs, labels


def look_through(batches: Batches, where: str, limit: int | None) -> int:
    """Checks up to `limit` samples (all when None); returns the highest label + 1."""
    if isinstance(batches, TensorBatches):
        check_inputs(batches.x, where)
        return int(check_labels(batches.y, None, where).max()) + 1
    seen, highest = 0, -1
    for inputs, targets in batches.epoch(0, training=False):
        check_inputs(inputs, where)
        if targets.numel():
            highest = max(highest, int(check_labels(targets.flatten(), None, where).max()))
        seen += len(targets)
        if limit is not None and seen >= limit:
            break
    if seen == 0:
        raise DataError(f"{where}: the data set is empty: give at least one sample")
    return highest + 1

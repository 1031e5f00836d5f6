"""Inputs of any structure in memory, samples without targets, and targets that the original gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from hirelc import labelled
from hirelc.batches import Batches, Sealed, TensorBatches, as_batches, first_samples, no_targets, split_batch
from hirelc.data_checks import Seen, compare_splits, look_through
from hirelc.errors import DataError, RunError
from hirelc.labelled import Labelled, LabelledSealed
from hirelc.models import answers
from hirelc.task import CLASSIFICATION, DISTILL_CLASSES

X = torch.arange(20.0).reshape(10, 2)
STRUCTURES: dict[str, Any] = {
    "tensor": X,
    "array": X.numpy(),
    "tuple": (X, X[:, :1]),
    "dict": {"a": X, "b": X[:, 0]},
}


def same(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor):
        return torch.equal(left, torch.as_tensor(right))
    keys = left if isinstance(left, dict) else range(len(left))
    return type(left) is type(right) and all(torch.equal(left[key], right[key]) for key in keys)


@pytest.mark.parametrize("x", STRUCTURES.values(), ids=STRUCTURES.keys())
def test_inputs_of_any_structure_stay_together(x: Any) -> None:
    y = torch.arange(10)
    batches = as_batches((x, y), 4)
    assert isinstance(batches, TensorBatches) and batches.samples == 10
    assert same(first_samples(batches, 10)[0], torch.as_tensor(x) if isinstance(x, np.ndarray) else x)
    for inputs, targets in batches.epoch(3, training=True):
        parts = list(inputs.values()) if isinstance(inputs, dict) else [inputs] if isinstance(inputs, Tensor) else list(inputs)
        assert all(torch.equal(part.reshape(4, -1)[:, 0], 2.0 * targets) for part in parts)
    with pytest.raises(DataError, match="one label for each input"):
        as_batches((x, y[:9]), 4)


@pytest.mark.parametrize(
    "data",
    [
        X,
        X.numpy(),
        {"a": X},
        TensorDataset(X),
        DataLoader(TensorDataset(X), 4),
        DataLoader(X, 4),
        [X[:4], X[4:8], X[8:]],
        (X, X),
    ],  # type: ignore[arg-type]
    ids=["tensor", "array", "dict", "dataset", "loader", "loader of rows", "batches", "x and labels"],
)
def test_samples_without_targets(data: Any) -> None:
    batches = as_batches(data, 4, labelled=False)
    assert batches.samples == 10
    inputs, targets = first_samples(batches, 10)
    assert same(inputs, {"a": X} if isinstance(data, dict) else X)
    assert isinstance(data, tuple) or targets.shape == (10, 0)
    assert look_through(batches, "here", None, "none").samples == 10


def test_targets_that_are_missing_are_missed() -> None:
    with pytest.raises(DataError, match='without "labels"'):
        split_batch({"a": X})
    with pytest.raises(DataError, match="give a DataLoader"):
        as_batches(X, 4)
    for kind, message in (("classes", "there are no labels"), ("values", "there are no targets")):
        with pytest.raises(DataError, match=message):
            look_through(TensorBatches(X, no_targets(10)), "here", None, kind)


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.calls = nn.Linear(2, 3), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.linear(x)


def test_the_originals_answers_are_the_targets_and_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = Counted().train()
    batches = Labelled(TensorBatches(X, no_targets(10), 4), answers(network, DISTILL_CLASSES))
    assert isinstance(batches, Batches) and batches.samples == 10
    for _ in range(2):
        found = torch.cat([y for _, y in batches.epoch(0, training=False)])
        assert torch.equal(found, network.linear(X).argmax(-1))
    assert network.calls == 3 and not network.training
    for inputs, targets in batches.epoch(5, training=True):
        assert torch.equal(targets, network.linear(inputs).argmax(-1))
    assert network.calls == 5
    monkeypatch.setattr(labelled, "KEPT_VALUES", 5)
    sparing = Labelled(TensorBatches(X, no_targets(10), 4), answers(network, DISTILL_CLASSES))
    both = [torch.cat([y for _, y in sparing.epoch(0, training=False)]) for _ in range(2)]
    assert torch.equal(both[0], both[1]) and network.calls == 5 + 3 + 2
    with pytest.raises(RunError, match="targets of its own"):
        answers(network, CLASSIFICATION)(X)


def test_a_labelled_test_split_is_as_sealed_as_before() -> None:
    inner = Sealed(TensorBatches(X, no_targets(10), 4))
    outer = LabelledSealed(inner, lambda inputs: torch.zeros(len(inputs)))  # type: ignore[arg-type]
    assert isinstance(outer, Sealed) and outer.samples == 10
    with pytest.raises(DataError, match="only once"):
        outer.epoch(0, training=False)
    outer.unseal()
    assert [len(y) for _, y in outer.epoch(0, training=False)] == [4, 4, 2]
    assert outer.readings == inner.readings == 1
    with pytest.raises(DataError, match="not be trained on"):
        outer.epoch(0, training=True)


def seen(*labels: int, whole: bool = True) -> Seen:
    return Seen(max(labels) + 1, frozenset(labels), 10, whole)


def test_splits_are_compared() -> None:
    assert compare_splits(seen(0, 1), seen(0, 1), "classes") == []
    assert compare_splits(seen(0, 2), seen(0, 1, 2, 3), "classes") == ["2 classes do not occur in the fine-tuning split: 1, 3"]
    assert compare_splits(seen(0, 1, 2), seen(0, 1), "classes") == ["1 classes do not occur in the search-validation split: 2"]
    assert compare_splits(seen(0, 2, whole=False), seen(0, 1, 2), "classes") == [], "the rest may hold it"
    with pytest.raises(DataError, match=r"search-validation split holds one class only \(label 1\)"):
        compare_splits(seen(0, 1), seen(1), "classes")
    assert compare_splits(seen(0), seen(0), "positions") == []


def test_what_a_look_finds() -> None:
    y = torch.tensor([[0, 3, -100], [1, 0, -100]])
    found = look_through(TensorBatches(X[:2], y), "here", None, "positions")
    assert found == Seen(4, frozenset({0, 1, 3}), 2, True)
    assert not look_through(as_batches([(X, torch.arange(10))] * 3), "here", 15).whole
    for bad, message in (
        (y.clamp(min=-1), "label -1 is negative"),
        (y * 0 - 100, "nothing is asked"),
        (y + 0.5, "not whole numbers"),
    ):
        with pytest.raises(DataError, match=message):
            look_through(TensorBatches(X[:2], bad), "here", None, "positions")

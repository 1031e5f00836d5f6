from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from hirelc.batches import (
    Batches,
    DatasetBatches,
    LoaderBatches,
    Sealed,
    TensorBatches,
    as_batches,
    first_samples,
    map_inputs,
    samples_per_batch,
    shift_flip,
    split_batch,
)
from hirelc.errors import DataError


class Jittered(Dataset[Any]):
    """Items whose input depends on three random states, as augmenting data sets do."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = float(torch.rand(())) + random.random() + float(np.random.rand())
        return torch.tensor([index, noise]), index % 3


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.zeros(2), 0), (torch.ones(2), 1)])


def collected(batches: Batches, seed: int, training: bool) -> tuple[Tensor, Tensor]:
    parts = list(batches.epoch(seed, training))
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])  # type: ignore[misc]


def every_kind() -> list[Batches]:
    x, y = torch.arange(10.0).reshape(10, 1), torch.arange(10)
    loader = DataLoader(Jittered(), 4, shuffle=True)
    own_generator = DataLoader(Jittered(), 4, shuffle=True, generator=torch.Generator())
    pairs = [(x[:5], y[:5]), (x[5:], y[5:])]
    made = [(x, y), (x.numpy(), y.numpy()), TensorDataset(x, y), Jittered(), loader, own_generator, pairs]
    return [as_batches(data, 4) for data in made]


@pytest.mark.parametrize("batches", every_kind(), ids=lambda batches: type(batches).__name__)
class TestEveryKindOfBatches:
    """The contract of Batches."""

    def test_an_epoch_in_order_holds_all_samples(self, batches: Batches) -> None:
        assert len(collected(batches, 0, training=False)[0]) == batches.samples == 10

    def test_is_a_function_of_the_seed(self, batches: Batches) -> None:
        for training in (True, False):
            first, again = collected(batches, 3, training), collected(batches, 3, training)
            assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])

    def test_leaves_the_callers_randomness_alone(self, batches: Batches) -> None:
        torch.manual_seed(1), random.seed(1), np.random.seed(1)
        expected = float(torch.rand(())), random.random(), float(np.random.rand())
        torch.manual_seed(1), random.seed(1), np.random.seed(1)
        epoch = batches.epoch(0, training=True)
        next(epoch)
        assert (float(torch.rand(())), random.random(), float(np.random.rand())) == expected

    def test_is_not_disturbed_by_the_caller(self, batches: Batches) -> None:
        expected = collected(batches, 5, training=True)[0]
        parts = []
        for x, _ in batches.epoch(5, training=True):
            parts.append(x)
            torch.manual_seed(99)
        assert torch.equal(torch.cat(parts), expected)  # type: ignore[arg-type]


def test_training_epochs_shuffle_and_leave_out_the_rest() -> None:
    x, y = torch.arange(10.0)[:, None], torch.arange(10)
    for batches in (TensorBatches(x, y, 4), DatasetBatches(TensorDataset(x, y), 4)):
        first, other = collected(batches, 1, training=True), collected(batches, 2, training=True)
        assert len(first[0]) == 8
        assert not torch.equal(first[1], other[1])
        assert torch.equal(first[0][:, 0].long(), first[1])
        assert torch.equal(collected(batches, 1, training=False)[1], y)
    assert len(collected(TensorBatches(x, y, 64), 1, training=True)[0]) == 10


def test_uint8_pixels_are_normalised(tiny_images: tuple[Tensor, Tensor]) -> None:
    x, y = tiny_images
    inputs, _ = next(TensorBatches(x, y, 8, normalise=(0.5, 0.25)).epoch(0, training=False))
    torch.testing.assert_close(inputs, (x[:8] / 255 - 0.5) / 0.25)
    plain, _ = next(TensorBatches(x, y, 8).epoch(0, training=False))
    torch.testing.assert_close(plain, x[:8] / 255)


def test_shift_flip_moves_by_at_most_two_pixels_into_zeros(tiny_images: tuple[Tensor, Tensor]) -> None:
    images = tiny_images[0]
    moved = shift_flip(images, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    kinds = set()
    for image, around in zip(moved, padded, strict=True):
        ways = [
            (dy, dx, flip)
            for dy in range(5)
            for dx in range(5)
            for flip in (False, True)
            if torch.equal(image, around[:, dy : dy + 8, dx : dx + 8].flip(2) if flip else around[:, dy : dy + 8, dx : dx + 8])
        ]
        assert len(ways) == 1
        kinds.add(ways[0])
    assert len(kinds) > 15 and {flip for _, _, flip in kinds} == {True, False}
    assert moved.shape == images.shape and moved.dtype == torch.uint8


def test_only_training_is_augmented(tiny_images: tuple[Tensor, Tensor]) -> None:
    x, y = tiny_images
    augmented, plain = TensorBatches(x, y, 40, "shift-flip"), TensorBatches(x, y, 40)
    assert torch.equal(collected(augmented, 0, False)[0], collected(plain, 0, False)[0])
    assert not torch.equal(collected(augmented, 0, True)[0], collected(plain, 0, True)[0])


def test_batches_of_dicts_and_of_several_inputs() -> None:
    inputs, labels = split_batch({"ids": [[1, 2]], "mask": [[1, 1]], "labels": [3]})
    assert isinstance(inputs, dict) and set(inputs) == {"ids", "mask"} and labels.tolist() == [3]
    inputs, labels = split_batch((torch.zeros(2, 1), torch.ones(2, 1), torch.tensor([0, 1])))
    assert isinstance(inputs, tuple) and len(inputs) == 2 and labels.tolist() == [0, 1]
    assert map_inputs(inputs, lambda tensor: tensor[:1])[0].shape == (1, 1)


def test_first_samples_joins_batches() -> None:
    rows = [{"ids": torch.full((2, 3), i), "labels": torch.tensor([i, i])} for i in range(4)]
    inputs, labels = first_samples(as_batches(rows), 5)
    assert isinstance(inputs, dict) and inputs["ids"].shape == (5, 3) and labels.tolist() == [0, 0, 1, 1, 2]
    with pytest.raises(DataError, match="empty"):
        first_samples(as_batches([]), 5)


def test_samples_of_a_loader() -> None:
    assert as_batches(DataLoader(Jittered(), 4, drop_last=True)).samples == 8
    assert as_batches(DataLoader(Stream(), 2)).samples == 2
    assert LoaderBatches([(torch.zeros(3, 1), torch.zeros(3))]).samples == 3


@pytest.mark.parametrize("data", [3, "x", torch.zeros(3), None, {"x": 1}])
def test_what_holds_no_batches_is_refused(data: object) -> None:
    with pytest.raises(DataError, match="give a DataLoader"):
        as_batches(data)


def test_malformed_batches_are_refused() -> None:
    with pytest.raises(DataError, match="read only once"):
        as_batches(iter([(torch.zeros(1), torch.zeros(1))]))
    with pytest.raises(DataError, match='without "labels"'):
        split_batch({"x": torch.zeros(1)})
    with pytest.raises(DataError, match="pairs"):
        split_batch(torch.zeros(1))
    with pytest.raises(DataError, match="differ in shape"):
        ragged = [(torch.zeros(2), 0), (torch.zeros(3), 1)]
        collected(as_batches(DataLoader(ragged, 2)), 0, False)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="3 inputs but 2 labels"):
        TensorBatches(torch.zeros(3, 1), torch.zeros(2))
    with pytest.raises(DataError, match="empty"):
        TensorBatches(torch.zeros(0, 1), torch.zeros(0))
    with pytest.raises(DataError, match="unknown augmentation"):
        TensorBatches(torch.zeros(1, 1, 2, 2), torch.zeros(1), augment="blur")
    with pytest.raises(DataError, match="needs images"):
        TensorBatches(torch.zeros(1, 2), torch.zeros(1), augment="shift")
    with pytest.raises(DataError, match="empty"):
        as_batches(TensorDataset(torch.zeros(0, 1), torch.zeros(0), torch.zeros(0)))


class Broken(Dataset[tuple[Tensor, int]]):
    """One sample of it cannot be read."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 2:
            raise self.error
        return torch.zeros(1), 0


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("cannot read photo 7"), r"fails while it is read: OSError: cannot read photo 7: repair"),
        (RuntimeError("odd\nlines"), "RuntimeError: lines"),
        (KeyError("label"), "KeyError: 'label'"),
    ],
)
def test_a_data_set_that_raises_is_one_line(error: Exception, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        collected(as_batches(Broken(error), 2), 0, False)
    assert "\n" not in str(caught.value) and caught.value.__cause__ is error


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), DataError("x")])
def test_failures_of_the_machine_stay_what_they_are(error: Exception) -> None:
    """Whoever measures tells them from faults of the data."""
    with pytest.raises(type(error)) as caught:
        collected(as_batches(Broken(error), 2), 0, False)
    assert caught.value is error


def test_a_worker_that_raises_is_one_line() -> None:
    with pytest.raises(DataError, match=r"fails while it is read: OSError: gone: repair") as caught:
        collected(as_batches(DataLoader(Broken(OSError("gone")), 2, num_workers=1)), 0, False)
    assert "\n" not in str(caught.value)


def test_single_samples_are_no_batches() -> None:
    with pytest.raises(DataError, match="single sample came"):
        split_batch((torch.zeros(3), 1))


def test_the_test_split_is_sealed_until_the_search_is_over() -> None:
    sealed = Sealed(TensorBatches(torch.zeros(5, 1), torch.zeros(5)))
    assert isinstance(sealed, Batches) and sealed.samples == 5
    with pytest.raises(DataError, match="only once, after the search"):
        sealed.epoch(0, training=False)
    assert sealed.readings == 0
    sealed.unseal()
    list(sealed.epoch(0, training=False))
    assert sealed.readings == 1
    with pytest.raises(DataError, match="not be trained on"):
        sealed.epoch(0, training=True)


def test_samples_per_batch_are_those_of_the_data() -> None:
    x, y = torch.zeros(20, 3), torch.zeros(20, dtype=torch.long)
    assert samples_per_batch(as_batches((x, y), 8)) == 8
    assert samples_per_batch(as_batches(DataLoader(TensorDataset(x, y), batch_size=5), 8)) == 5
    assert samples_per_batch(as_batches((x[:4], y[:4]), 8)) == 4
    assert samples_per_batch(as_batches([(x[:7], y[:7])], 8)) == 7

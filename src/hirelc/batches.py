"""Batches of samples: how everything that trains or measures reads its data.

A batch is a pair `(inputs, targets)`. Inputs are one tensor, a tuple of tensors or a dict of tensors, first
dimension the batch; targets are one tensor, of shape (batch, 0) where there are none. Every epoch is a function of
its seed alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from hirelc.errors import DataError, HirelcError
from hirelc.failures import machine_failure
from hirelc.seeds import stream_seed

Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
Batch = tuple[Inputs, Tensor]
Normalisation = tuple[float | tuple[float, ...], float | tuple[float, ...]]

MAX_SHIFT = 2
AUGMENTATIONS = (None, "shift", "shift-flip")


@runtime_checkable
class Batches(Protocol):
    """A set of samples that can be read again and again, a batch at a time."""

    @property
    def samples(self) -> int:
        """How many samples one epoch in order holds."""

    def epoch(self, seed: int, training: bool) -> Iterator[Batch]:
        """One pass. For training: shuffled and augmented by `seed`, an incomplete last batch left out. Else: in order."""


def shift_flip(images: Tensor, generator: torch.Generator, flip: bool = True) -> Tensor:
    """Moves every image by up to two pixels, each its own way, filled with zeros; mirrors every second one.

    :param images: (batch, channels, height, width), any dtype; zero is the background
    :param generator: where the randomness comes from
    :returns: new images, same shape and dtype
    """
    count, _, height, width = images.shape
    moves = torch.randint(0, 2 * MAX_SHIFT + 1, (2, count, 1), generator=generator)
    rows = torch.arange(height) + moves[0]
    columns = torch.arange(width) + moves[1]
    if flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    padded = torch.nn.functional.pad(images, (MAX_SHIFT,) * 4)
    which = torch.arange(count)[:, None, None]
    # Indexing with a slice between index tensors puts the channels last; they go back to their place.
    return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


class TensorBatches:
    """Samples held in memory.

    :param x: (samples, ...), or a tuple or dict of such; uint8 pixels stay uint8 in memory and leave as float32 / 255
    :param y: (samples, ...) targets; `no_targets(samples)` where there are none
    :param augment: None, "shift" or "shift-flip" (images only), applied in training epochs
    :param normalise: (mean, std), numbers or one for each channel, subtracted from and divided into uint8 pixels after
        the division by 255
    :raises DataError: empty, lengths that differ, an unknown augmentation or one that needs images
    """

    def __init__(
        self,
        x: Inputs,
        y: Tensor,
        batch_size: int = 128,
        augment: str | None = None,
        normalise: Normalisation | None = None,
    ) -> None:
        lengths = {len(tensor) for tensor in tensors_of(x)}
        if lengths != {len(y)}:
            raise DataError(f"{', '.join(map(str, sorted(lengths)))} inputs but {len(y)} labels: give one label for each input")
        if len(y) == 0:
            raise DataError("the data set is empty: give at least one sample")
        if batch_size < 1:
            raise DataError(f"batch_size must be at least 1, not {batch_size}")
        if augment not in AUGMENTATIONS:
            raise DataError(f"unknown augmentation {augment!r}: use one of {', '.join(map(str, AUGMENTATIONS))}")
        if augment and (not isinstance(x, Tensor) or x.dim() != 4):
            shape = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise DataError(f"{augment!r} needs images (samples, channels, height, width), not {shape}")
        self.x, self.y = x, y
        self.batch_size, self.augment, self.normalise = batch_size, augment, normalise

    @property
    def samples(self) -> int:
        return len(self.y)

    def epoch(self, seed: int, training: bool) -> Iterator[Batch]:
        order = torch.arange(self.samples)
        end = self.samples
        generator = torch.Generator().manual_seed(stream_seed(seed, "epoch"))
        if training:
            order = torch.randperm(self.samples, generator=generator)
            end -= self.samples % self.batch_size if self.samples > self.batch_size else 0
        for start in range(0, end, self.batch_size):
            rows = order[start : min(start + self.batch_size, end)]
            inputs = map_inputs(self.x, lambda tensor, rows=rows: tensor[rows])  # type: ignore[misc]
            if training and self.augment and isinstance(inputs, Tensor):
                inputs = shift_flip(inputs, generator, flip=self.augment == "shift-flip")
            yield map_inputs(inputs, self._ready), self.y[rows]

    def _ready(self, x: Tensor) -> Tensor:
        if x.dtype != torch.uint8:
            return x
        if self.normalise is None:
            return x.float().div_(255.0)
        mean, std = (torch.tensor(part, dtype=torch.float32) for part in self.normalise)
        if mean.dim():
            mean, std = (part.reshape(-1, *[1] * (x.dim() - 2)) for part in (mean, std))
        return x.float().div_(255.0).sub_(mean).div_(std)


class LoaderBatches:
    """A DataLoader, or anything that can be iterated again and again over `(x, y)` pairs or dicts with "labels".

    The loader decides on order and augmentation; its randomness (torch, numpy, random) is seeded for each epoch
    and set back between batches, so that neither the caller nor the loader disturbs the other.
    """

    def __init__(self, loader: Iterable[Any], samples: int | None = None, labelled: bool = True) -> None:
        if isinstance(loader, Iterator):
            raise DataError("the data can be read only once: give a DataLoader or a list of batches, not an iterator")
        self.loader = loader
        self._samples = samples
        self._labelled = labelled

    @property
    def samples(self) -> int:
        if self._samples is None:
            self._samples = sum(batch_length(targets) for _, targets in self.epoch(0, training=False))
        return self._samples

    def epoch(self, seed: int, training: bool) -> Iterator[Batch]:
        return _read(self._loader(training), seed, self._labelled)

    def _loader(self, training: bool) -> Iterable[Any]:
        return self.loader


class DatasetBatches(LoaderBatches):
    """A map-style Dataset of `(x, y)` items; shuffled in training epochs, in order otherwise."""

    def __init__(self, dataset: Dataset[Any], batch_size: int, labelled: bool = True) -> None:
        count = len(dataset)  # type: ignore[arg-type]
        if count == 0:
            raise DataError("the data set is empty: give at least one sample")
        self._for_training = DataLoader(dataset, batch_size, shuffle=True, drop_last=count > batch_size)
        super().__init__(DataLoader(dataset, batch_size), samples=count, labelled=labelled)

    def _loader(self, training: bool) -> Iterable[Any]:
        return self._for_training if training else self.loader


class Sealed:
    """The test split: locked while the search runs, and every reading counted.

    :ivar readings: how many epochs have been read
    """

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._open = False
        self.readings = 0

    @property
    def samples(self) -> int:
        return self._batches.samples

    def unseal(self) -> None:
        """Ends the search: from here on the split may be measured."""
        self._open = True

    def epoch(self, seed: int, training: bool) -> Iterator[Batch]:
        if not self._open:
            raise DataError("the test split may be read only once, after the search: call unseal() when the search is over")
        if training:
            raise DataError("the test split must not be trained on: train on the train split")
        self.readings += 1
        return self._batches.epoch(seed, training=False)


def samples_per_batch(data: Batches) -> int | None:
    """How many samples a training batch has, by the first of them; None without one."""
    first = next(iter(data.epoch(0, training=True)), None)
    return None if first is None else batch_length(first[0])


def no_targets(samples: int) -> Tensor:
    """What stands in the place of targets where there are none."""
    return torch.empty(samples, 0)


def as_batches(data: object, batch_size: int = 128, labelled: bool = True) -> Batches:
    """Batches of whatever holds samples: Batches, a DataLoader, a Dataset, `(x, y)`, or an iterable of batches.

    :param labelled: False takes inputs alone as well: one tensor, a tuple or dict of tensors, a Dataset or loader of such
    :raises DataError: nothing of these, or a pair whose lengths differ
    """
    if isinstance(data, Batches):
        return data
    if isinstance(data, DataLoader):
        return LoaderBatches(data, _loader_samples(data), labelled)
    if isinstance(data, TensorDataset) and len(data.tensors) == 2:
        return TensorBatches(data.tensors[0], data.tensors[1], batch_size)
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset) and hasattr(data, "__len__"):
        return DatasetBatches(data, batch_size, labelled)
    if isinstance(data, tuple | list) and len(data) == 2 and _is_array(data[1]) and (inputs := _arrays(data[0])) is not None:
        return TensorBatches(inputs, torch.as_tensor(data[1]), batch_size)
    if not labelled and (inputs := _arrays(data)) is not None:
        return TensorBatches(inputs, no_targets(batch_length(inputs)), batch_size)
    if isinstance(data, Iterable) and not isinstance(data, str | bytes | Mapping | Tensor | np.ndarray):
        return LoaderBatches(data, None, labelled)
    raise DataError(
        f"cannot read batches from a {type(data).__name__}: give a DataLoader, a Dataset of (x, y), or two tensors (x, y)"
    )


def _is_array(data: object) -> bool:
    return isinstance(data, Tensor | np.ndarray)


def _arrays(data: object) -> Inputs | None:
    """Whole inputs in memory as tensors; None where this is something else."""
    if _is_array(data):
        return torch.as_tensor(data)
    if isinstance(data, Mapping) and data and all(map(_is_array, data.values())):
        return {str(name): torch.as_tensor(part) for name, part in data.items()}
    if isinstance(data, tuple) and data and all(map(_is_array, data)):
        return tuple(torch.as_tensor(part) for part in data)
    return None


def tensors_of(inputs: Inputs) -> list[Tensor]:
    """All tensors of the inputs."""
    if isinstance(inputs, Tensor):
        return [inputs]
    return list(inputs.values()) if isinstance(inputs, Mapping) else list(inputs)


def batch_length(batch: Inputs) -> int:
    """Samples in the inputs (or targets) of one batch."""
    return len(tensors_of(batch)[0])


def map_inputs(inputs: Inputs, function: Callable[[Tensor], Tensor]) -> Inputs:
    """The same structure with `function` applied to every tensor (to move, slice or cast a batch)."""
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, Mapping):
        return {name: function(tensor) for name, tensor in inputs.items()}
    return tuple(function(tensor) for tensor in inputs)


def first_samples(batches: Batches, count: int) -> Batch:
    """The first `count` samples in order, as one batch (for calibration or as an example input).

    :raises DataError: there is no sample at all
    """
    parts: list[Batch] = []
    found = 0
    for inputs, targets in batches.epoch(0, training=False):
        take = min(count - found, len(targets))
        parts.append((map_inputs(inputs, lambda t, n=take: t[:n]), targets[:take]))  # type: ignore[misc]
        found += take
        if found >= count:
            break
    if not parts:
        raise DataError("the data set is empty: give at least one sample")
    return _joined([inputs for inputs, _ in parts]), torch.cat([targets for _, targets in parts])


def _joined(parts: list[Inputs]) -> Inputs:
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(parts)  # type: ignore[arg-type]
    keys = list(first) if isinstance(first, Mapping) else range(len(first))
    joined = {key: torch.cat([part[key] for part in parts]) for key in keys}  # type: ignore[index]
    return joined if isinstance(first, Mapping) else tuple(joined.values())  # type: ignore[return-value]


def split_batch(batch: object, labelled: bool = True) -> Batch:
    """Inputs and targets of what a loader gave: `(x, y)`, `(x1, x2, ..., y)` or a dict with "labels".

    :param labelled: False takes a batch without targets as well: a tensor, `(x,)`, or a dict without "labels"
    :raises DataError: any other form
    """
    if not labelled and isinstance(batch, tuple | list) and len(batch) == 1:
        batch = batch[0]
    if not labelled and (isinstance(batch, Tensor) or (isinstance(batch, Mapping) and "labels" not in batch)):
        inputs = {str(k): torch.as_tensor(v) for k, v in batch.items()} if isinstance(batch, Mapping) else batch
        return inputs, no_targets(batch_length(inputs))
    if isinstance(batch, Mapping):
        if "labels" not in batch:
            raise DataError(f'a batch is a dict without "labels" (it has {sorted(map(str, batch))}): add them')
        inputs = {str(name): torch.as_tensor(value) for name, value in batch.items() if name != "labels"}
        return inputs, _targets(batch["labels"])
    if isinstance(batch, tuple | list) and len(batch) >= 2:
        *first, targets = batch
        if len(first) == 1 and isinstance(first[0], Mapping):
            return {str(name): torch.as_tensor(value) for name, value in first[0].items()}, _targets(targets)
        tensors = tuple(torch.as_tensor(part) for part in first)
        return (tensors[0] if len(tensors) == 1 else tensors), _targets(targets)
    raise DataError(f'a batch is a {type(batch).__name__}: the loader must give pairs (x, y) or dicts with "labels"')


def _targets(values: Any) -> Tensor:
    targets = torch.as_tensor(values)
    if targets.dim() == 0:
        raise DataError("a single sample came where a batch was expected: give a DataLoader over the data set")
    return targets


def _loader_samples(loader: DataLoader[Any]) -> int | None:
    if isinstance(loader.dataset, IterableDataset) or loader.batch_size is None:
        return None
    count = len(loader.sampler)  # type: ignore[arg-type]
    return count - count % loader.batch_size if loader.drop_last else count


def _random_state() -> tuple[Any, ...]:
    return torch.get_rng_state(), np.random.get_state(), random.getstate()


def _set_random_state(state: tuple[Any, ...]) -> None:
    torch.set_rng_state(state[0])
    np.random.set_state(state[1])
    random.setstate(state[2])


def _seed_loader(loader: Iterable[Any], seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    for owner in (loader, getattr(loader, "sampler", None)):
        generator = getattr(owner, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)


def _read(loader: Iterable[Any], seed: int, labelled: bool = True) -> Iterator[Batch]:
    """Reads a loader under its own random state, which is swapped in for each batch and out again before the yield."""
    caller = _random_state()
    try:
        _seed_loader(loader, stream_seed(seed, "epoch"))
        batches = iter(loader)
        own = _random_state()
    finally:
        _set_random_state(caller)
    while True:
        caller = _random_state()
        try:
            _set_random_state(own)
            batch = next(batches, None)
            own = _random_state()
        except RuntimeError as error:
            if "DataLoader worker" in str(error) and hasattr(loader, "_iterator"):
                loader._iterator = None  # persistent workers: the dead one would be asked again
            if "equal size" in str(error):
                raise DataError("samples of one batch differ in shape: resize or crop them to one shape") from error
            raise _reading_failed(error) from error
        except (HirelcError, MemoryError):
            raise
        except Exception as error:  # the data set's own code runs here: it may raise anything
            raise _reading_failed(error) from error
        finally:
            _set_random_state(caller)
        if batch is None:
            return
        yield split_batch(batch, labelled)


def _reading_failed(error: Exception) -> Exception:
    """What to tell of a data set that raises; the machine's own failures stay what they are."""
    if machine_failure(error) is not None:
        return error
    lines = [line for line in str(error).splitlines() if line.strip()]
    words = lines[-1].strip() if lines else ""  # a worker puts its traceback before it
    known = words if words.startswith(type(error).__name__) else f"{type(error).__name__}: {words}"
    return DataError(f"the data set fails while it is read: {known}: repair that sample, or leave it out")
